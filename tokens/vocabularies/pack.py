#!/usr/bin/env python3
"""pack.py NAME.tiktoken > NAME.bin: packs a vocabulary file of OpenAI's into length byte and bytes of
each token, in the order of ranks. Compress with `zstd --ultra -22`. See README.md for the sources."""
import base64, sys

ranks = {}
for line in open(sys.argv[1], "rb"):
    if line.strip():
        token, rank = line.split()
        ranks[int(rank)] = base64.b64decode(token)
assert sorted(ranks) == list(range(len(ranks))), "the ranks have gaps"
for rank in range(len(ranks)):
    sys.stdout.buffer.write(bytes([len(ranks[rank])]) + ranks[rank])
