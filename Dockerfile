# Build:  docker build --tag slproxy:0.1.0 .
#         Podman and buildah with --format docker: the format of the OCI, their default, drops HEALTHCHECK.
# Run:    docker run --rm --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges \
#             --publish 127.0.0.1:8642:8642 --volume slproxy:/var/lib/slproxy \
#             --volume "$PWD/deploy/secrets/slproxy_key:/run/secrets/slproxy_key:ro" \
#             --volume "$PWD/deploy/secrets/salesloft_api_key:/run/secrets/salesloft_api_key:ro" \
#             --env SLPROXY_LISTEN__KEY_FILE=/run/secrets/slproxy_key \
#             --env SALESLOFT_API_KEY_FILE=/run/secrets/salesloft_api_key slproxy:0.1.0
# Then:   curl --header "X-Slproxy-Key: $(cat deploy/secrets/slproxy_key)" http://localhost:8642/v2/me.json
# compose.yaml says how to make the two files.
#
# No secret is in the image: .dockerignore lets nothing into the build but what is copied below, and no build argument is
# one.

# The Python that the test suite runs on.
ARG PYTHON=3.11
# For a build that stands on the same base each time, name it by its digest:
#   --build-arg BASE=docker.io/library/python:3.11-slim@sha256:…
ARG BASE=docker.io/library/python:${PYTHON}-slim

FROM ${BASE} AS build
WORKDIR /src
# The environment that runs later gets no pip of its own: the base's installs into it.
RUN python -m venv --without-pip /opt/slproxy && python -m venv --without-pip /opt/build
# Each version with its hashes, of all processors (`make pins`).
COPY deploy/requirements.txt deploy/requirements-build.txt ./
RUN python -m pip --python /opt/slproxy/bin/python install \
      --no-cache-dir --disable-pip-version-check --no-deps --require-hashes --requirement requirements.txt && \
    python -m pip --python /opt/build/bin/python install \
      --no-cache-dir --disable-pip-version-check --no-deps --require-hashes --requirement requirements-build.txt
COPY pyproject.toml README.md LICENSE deploy/sbom.py ./
COPY slproxy ./slproxy
RUN /opt/build/bin/python -m hatchling build --target wheel && \
    python -m pip --python /opt/slproxy/bin/python install \
      --no-cache-dir --disable-pip-version-check --no-deps --no-index dist/*.whl && \
    /opt/slproxy/bin/python sbom.py > /opt/slproxy/sbom.cdx.json

FROM ${BASE}
COPY --from=build /opt/slproxy /opt/slproxy
# The state is owned by the user below: a fresh named volume takes owner and mode from here. A slproxy.toml mounted in
# /etc/slproxy has the owner that it has outside, so it is to be named: SLPROXY_CONFIG=/etc/slproxy/slproxy.toml.
# The official base holds its library uncompiled, and nothing can be compiled later: each start would do that again.
RUN install -d -o 65532 -g 65532 -m 0700 /var/lib/slproxy && install -d -m 0755 /etc/slproxy && \
    python -m compileall -q -x '/(test|tests|idlelib|lib2to3|tkinter|turtledemo|ensurepip|site-packages|dist-packages)/' \
      "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
# A published port reaches the container's own address, not its loopback. slproxy does not start on it without a local key:
# mount one and name it in SLPROXY_LISTEN__KEY_FILE. With SLPROXY_METRICS__PORT, metrics and probes are there without one.
ENV PATH=/opt/slproxy/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    XDG_CONFIG_HOME=/etc \
    XDG_STATE_HOME=/var/lib \
    SLPROXY_LISTEN__HOST=0.0.0.0 \
    SLPROXY_METRICS__HOST=0.0.0.0
WORKDIR /etc/slproxy
# A number, so that Kubernetes can tell that it is not root.
USER 65532:65532
VOLUME /var/lib/slproxy
EXPOSE 8642
# Wherever the settings, or the flags of `serve`, have it listen. 20 ms of processor time beyond Python's own start.
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s --retries=3 CMD ["slproxy", "healthcheck"]
# SIGTERM lets requests in flight end, for 30 seconds: docker stop -t 35.
STOPSIGNAL SIGTERM
ENTRYPOINT ["slproxy"]
CMD ["serve"]
# What this is built of: --build-arg REVISION="$(git rev-parse HEAD)" --build-arg SOURCE=https://…
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="slproxy" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.description="A local reverse proxy for the SalesLoft API that keeps the token" \
      org.opencontainers.image.licenses="MIT AND Apache-2.0"
