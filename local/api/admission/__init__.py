"""What a kind adds to the generic write path: defaults and rules, as upstream's webhooks do."""
