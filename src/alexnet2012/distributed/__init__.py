"""Which processes there are, what each holds, and what they decide together."""
