"""What every room builds on and that builds on none of them."""
