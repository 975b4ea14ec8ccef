"""Auth: registering, signing in, and knowing on each request who is asking."""
