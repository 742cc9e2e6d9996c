"""How much a service can take, and what it needs: measured service times, a model of the queue that uses the pool's own policy, a search. Knows no HTTP."""
