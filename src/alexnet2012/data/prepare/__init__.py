"""ILSVRC-2012 as people have it, made into prepared shards, verified."""
