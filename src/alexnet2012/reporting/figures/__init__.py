"""The paper's pictures of a trained net, and learning curves, at the width of a paper's column."""
