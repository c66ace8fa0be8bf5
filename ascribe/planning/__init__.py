"""What a solve will cost, by arithmetic alone: the service shows the plan, the worker follows it. No torch."""
