"""What can be asked, and the way from words to a request."""
