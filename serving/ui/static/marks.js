// What a model writes, while it writes it: taken apart as the server does in the end, but never showing half a mark.

const OPEN = "##begin_quote##";
const CLOSE = "##end_quote##";
const ANSWER = "<ANSWER>:";
const ABSTAIN = "NOT FOUND";
const NAMED = /(^|\s)Passage \d{1,9}:\s*$/;
const NAMED_IN_PART = /(^|\n)[ \t]*P(a(s(s(a(g(e( (\d{0,9}:?\s*)?)?)?)?)?)?)?)?$/;

/**
 * Return the parts of an unfinished text: `{kind, text}` with kind "thought", "quote" or "answer".
 *
 * A mark may come in pieces, so an end that could become one is held back until more is known.
 */
export function partsOf(raw) {
  const parts = [];
  const at = raw.lastIndexOf(ANSWER);
  const before = at < 0 ? raw : raw.slice(0, at);
  let rest = at < 0 ? withoutHalfMark(before, [OPEN, CLOSE, ANSWER]) : before;
  while (rest) {
    const open = rest.indexOf(OPEN);
    const thought = open < 0 ? rest.replace(at < 0 ? NAMED_IN_PART : NAMED, "$1") : rest.slice(0, open).replace(NAMED, "$1");
    add(parts, "thought", thought);
    if (open < 0) break;
    const close = rest.indexOf(CLOSE, open);
    add(parts, "quote", rest.slice(open + OPEN.length, close < 0 ? undefined : close));
    rest = close < 0 ? "" : rest.slice(close + CLOSE.length);
  }
  if (at >= 0) {
    const answer = raw.slice(at + ANSWER.length).trim();
    const abstains = ABSTAIN.startsWith(answer.toUpperCase().slice(0, ABSTAIN.length));
    if (!abstains) add(parts, "answer", withoutHalfMark(answer, [ANSWER]));
  }
  return parts;
}

function add(parts, kind, text) {
  // A mark out of place says nothing to people.
  const shown = text.replaceAll(OPEN, "").replaceAll(CLOSE, "").trim();
  if (shown) parts.push({ kind, text: shown });
}

function withoutHalfMark(text, marks) {
  if (marks.some((mark) => text.endsWith(mark))) return text;
  const longest = Math.max(...marks.map((mark) => mark.length)) - 1;
  for (let length = Math.min(longest, text.length); length > 0; length--) {
    const end = text.slice(-length);
    if (marks.some((mark) => mark.length > length && mark.startsWith(end))) return text.slice(0, -length);
  }
  return text;
}
