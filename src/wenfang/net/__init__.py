"""The one HTTP client: time-outs, retries with jitter, a breaker for servers that are dead, and a guard over the addresses it may reach. Knows nothing of what is asked."""
