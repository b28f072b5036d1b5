"""The paper's claims are differences: every variant trained beside the base net, everything else equal."""
