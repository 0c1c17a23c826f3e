"""What a kind adds to the generic write path: defaults and validation, as upstream's webhooks do."""
