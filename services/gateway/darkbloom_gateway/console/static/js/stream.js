// Server-sent events out of a streamed answer.

/** Yields the data of each event; comments are left out. */
export async function* events(body) {
  for await (const block of blocks(body)) {
    const data = block.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5).replace(/^ /, ""));
    if (data.length) yield data.join("\n");
  }
}

async function* blocks(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let kept = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      kept += value;
      const parts = kept.split("\n\n");
      kept = parts.pop();
      yield* parts;
    }
    if (kept.trim()) yield kept;
  } finally {
    reader.cancel().catch(() => {});
  }
}
