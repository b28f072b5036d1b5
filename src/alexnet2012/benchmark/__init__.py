"""Speed: each part beside a peer or its limit, measured in one run."""
