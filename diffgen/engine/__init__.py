"""From a request to pictures: the one engine behind every command."""
