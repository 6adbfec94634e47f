"""Turn text into token shards and shards into batches: read, prepare, download, verify, load.

A document is a sequence of UTF-8 bytes. A shard is a file of token ids: each document is BOS (id 1) and its tokens, and
a document may continue in the next shard.
Nothing here imports torch: arrays are numpy arrays, and the trainer converts them.
"""
