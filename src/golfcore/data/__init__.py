"""From text to token shards and from shards to batches: reading, preparing, downloading, proving, loading.

A document is its UTF-8 bytes; in a shard it is BOS (id 1) and its tokens, and documents run on across shard ends.
Nothing here imports torch: arrays are numpy's, and the trainer converts them.
"""
