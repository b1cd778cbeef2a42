-- What each request is, and the figures of a run as one line of JSON: seconds, requests, failures, and latencies in ms.
local length = tonumber(os.getenv("POST") or "0")
wrk.headers["User-Agent"] = "bench"
wrk.headers["Accept"] = "*/*"
if length > 0 then
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
  wrk.body = string.rep("x", length)
end

function done(summary, latency)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  io.write(string.format(
    '{"seconds": %f, "requests": %d, "failed": %d, "p50": %f, "p99": %f}\n', summary.duration / 1e6,
    summary.requests, failed, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
