#!/usr/bin/env bash
# Replays the recorded exchanges of the dialects that this version meters, in every chunking.
# usage: replay.sh SHARED BURSAR
set -euo pipefail
replay="$1/cases/wire/replay.py"
bursar="$2"
# One expression per API that is metered; `replay.py --only` takes a substring of the case names.
metered=(openai-chat- openai-completions- openai-responses- openai-embeddings- openai-moderation- openai-count-tokens- anthropic-messages- anthropic-count-tokens-)
failed=0
for options in "" "--gzip" "--split 1" "--split 17"; do
  for only in "${metered[@]}"; do
    # shellcheck disable=SC2086  # the options are words
    if ! python3 "$replay" --bursar "$bursar" --only "$only" $options >target/replay.out 2>&1; then
      failed=1
      cat target/replay.out
    fi
    printf '%-28s %-10s %s\n' "$only" "${options:-plain}" "$(tail -n 1 target/replay.out)"
  done
done
exit $failed
