"""What a run shows: rows, TensorBoard, figures."""
