"""What tests stand on: servers, clients and processes. Nothing here is a test."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
