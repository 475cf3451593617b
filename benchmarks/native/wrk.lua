-- Prints wrk's result as a line of JSON.
done = function(summary, latency, requests)
   local errors = summary.errors
   io.write(string.format(
      '{"requests": %d, "seconds": %f, "bytes": %d, "errors": %d, "p50": %f, "p99": %f, "p999": %f}\n',
      summary.requests, summary.duration / 1e6, summary.bytes,
      errors.connect + errors.read + errors.write + errors.status + errors.timeout,
      latency:percentile(50) / 1e6, latency:percentile(99) / 1e6, latency:percentile(99.9) / 1e6))
end
