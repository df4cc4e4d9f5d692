"use strict";
// Finds the texts that hold all the words of a query, whatever their case and accents.
class Search {
  constructor(texts) {
    this.texts = texts;
    this.folded = null; // made when something is first looked for
  }
  static fold(text) { return text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase(); }
  // Words of alphabets that set spaces match from a word's beginning: "car" finds "cars", not "scar".
  // In other scripts nothing tells where a word begins.
  static SPACED = /^[\p{Script=Latin}\p{Script=Greek}\p{Script=Cyrillic}\p{N}]/u;
  static WITHIN = /[\p{L}\p{N}]$/u;

  static at(text, word) {
    const spaced = Search.SPACED.test(word);
    for (let at = text.indexOf(word); at >= 0; at = text.indexOf(word, at + 1)) {
      if (!spaced || at === 0 || !Search.WITHIN.test(text.slice(Math.max(0, at - 2), at))) return at;
    }
    return -1;
  }
  // marks: a byte a text, or null without a query; list: the numbers of those found.
  find(query) {
    const words = Search.fold(query).split(/\s+/).filter(Boolean);
    if (!words.length) return { marks: null, list: [], words };
    this.folded ??= this.texts.map(Search.fold);
    const marks = new Uint8Array(this.texts.length), list = [];
    this.folded.forEach((text, i) => {
      if (!words.every((word) => Search.at(text, word) >= 0)) return;
      marks[i] = 1;
      list.push(i);
    });
    return { marks, list, words };
  }
  // The text in parts, each with whether it is one of the words.
  marked(text, words) {
    const parts = [];
    let rest = text;
    // Folding may change lengths (ß, ligatures); then what was found is not where it stands.
    while (rest && words.length && Search.fold(rest).length === rest.length) {
      const folded = Search.fold(rest), before = text.slice(0, text.length - rest.length);
      const hits = words.map((word) => [Search.at(folded, word), word.length]).filter(([at]) => at > 0 || (at === 0 && !Search.WITHIN.test(before)));
      if (!hits.length) break;
      const [at, length] = hits.sort((a, b) => a[0] - b[0] || b[1] - a[1])[0];
      parts.push([rest.slice(0, at), false], [rest.slice(at, at + length), true]);
      rest = rest.slice(at + length);
    }
    return [...parts, [rest, false]].filter(([part]) => part);
  }
}
