// What a codec finds in its context, and how it is called. Evaluated before the codec, which can't reach what is in this function.
// Everything that is needed later is taken here, so that a codec that replaces JSON.stringify or extends Array.prototype harms nobody.
(function (global) {
  "use strict";
  const { parse, stringify } = JSON, { keys, create, defineProperty } = Object, { isArray } = Array, { construct } = Reflect;
  const text = String, evaluate = eval, cut = Function.prototype.call.bind(String.prototype.slice);
  const InternalFailure = InternalError, Failure = Error, wrappers = [Number, String, Boolean];
  const MAX_NESTING = 16, MAX_VALUES = 1000, MAX_RESULT = 262144, MAX_WARNINGS = 16, MAX_WORDS = 500, MAX_STACK = 2000;

  function hidden(name, value) {
    defineProperty(global, name, { value, writable: true, configurable: true, enumerable: false });
  }

  // The same bytes give the same values whenever they are decoded: the clock stands still at the receipt, and chance is none.
  let receivedAt = 0, seed = 1;
  const EngineDate = Date;
  function CodecDate(...parts) {
    if (new.target === undefined) return text(new EngineDate(receivedAt));
    return construct(EngineDate, parts.length ? parts : [receivedAt], new.target === CodecDate ? EngineDate : new.target);
  }
  defineProperty(CodecDate, "name", { value: "Date" });
  CodecDate.prototype = EngineDate.prototype;
  CodecDate.parse = EngineDate.parse;
  CodecDate.UTC = EngineDate.UTC;
  CodecDate.now = () => receivedAt;
  defineProperty(EngineDate.prototype, "constructor", { value: CodecDate, writable: true, configurable: true });
  hidden("Date", CodecDate);
  Math.random = () => (seed = (seed * 16807) % 2147483647) / 2147483647; // Park and Miller, CACM 31 (1988), page 1192
  delete global.performance;
  delete global.Atomics;
  delete global.SharedArrayBuffer;

  const silent = () => {};
  hidden("console", { log: silent, info: silent, warn: silent, error: silent, debug: silent, trace: silent, assert: silent, table: silent });

  // A string that is joined of others may be a rope in the engine, which its binding does not know; `text` makes it a string.
  // Kinds of failure: "e" the codec's, "l" a limit of the sandbox, "t" too large to be stored.
  function failure(kind, words, stack) {
    return text('["' + kind + '",' + stringify(cut(words, 0, MAX_WORDS)) + "," + stringify(cut(stack, 0, MAX_STACK)) + "]");
  }

  function failureOf(error) {
    let words = "an exception that can't be shown", stack = "";
    try {
      if (error instanceof InternalFailure && error.message === "out of memory") return failure("l", "memory", "");
      if (error instanceof Failure) {
        words = text(error.name) + ": " + text(error.message);
        stack = text(error.stack);
      } else {
        words = wordsOf(error);
      }
    } catch (_) {}
    return failure("e", words, stack);
  }

  function wordsOf(value) {
    return typeof value === "object" ? text(stringify(value)) : text(value);
  }

  function listOf(value) { // of what a codec says in errors or warnings
    if (value === undefined || value === null || value === false || value === "") return [];
    if (!isArray(value)) return [wordsOf(value)];
    const words = [];
    for (let i = 0; i < value.length && i < MAX_WARNINGS; i++) words[i] = cut(wordsOf(value[i]), 0, MAX_WORDS);
    return words;
  }

  // Most results are objects of numbers, booleans and texts: these need not be taken apart.
  function isFlat(object) {
    if (isArray(object) || typeof object.toJSON === "function") return false;
    const names = keys(object), length = names.length;
    if (length === 0 || length > MAX_VALUES) return false;
    for (let i = 0; i < length; i++) {
      const value = object[names[i]], type = typeof value;
      if (type === "number" ? value - value !== 0 : type !== "boolean" && type !== "string") return false;
    }
    return true;
  }

  const NONE = [];
  let values, warnings, count, kind, words;
  const path = [];

  function reject(as, why) {
    if (kind === "") {
      kind = as;
      words = why;
    }
  }

  function collect(object, prefix, depth) {
    for (let i = 0; i < depth; i++) {
      if (path[i] === object) return reject("e", "the values are cyclic: " + cut(prefix, 0, prefix.length - 1) + " holds itself");
    }
    if (depth === MAX_NESTING) return reject("t", "the values are nested more than " + MAX_NESTING + " levels deep");
    if (isArray(object) && object.length > MAX_VALUES) return reject("t", "there are more than " + MAX_VALUES + " values");
    path[depth] = object;
    const names = keys(object);
    for (let i = 0; i < names.length && kind === ""; i++) {
      const name = prefix + names[i];
      let value = object[names[i]];
      if (typeof value === "object" && value !== null) {
        if (typeof value.toJSON === "function") value = value.toJSON(names[i]);
        for (let w = 0; w < 3; w++) if (value instanceof wrappers[w]) value = value.valueOf();
      }
      switch (typeof value) {
        case "number":
          if (value - value !== 0) {
            if (warnings === NONE) warnings = [];
            if (warnings.length < 2 * MAX_WARNINGS) warnings[warnings.length] = cut(name, 0, MAX_WORDS) + " is " + value;
            break;
          }
        case "string":
        case "boolean":
          if (values[name] !== undefined) return reject("e", "two values have the joined name " + name);
          if (++count > MAX_VALUES) return reject("t", "there are more than " + MAX_VALUES + " values");
          values[name] = value;
          break;
        case "object":
          if (value !== null) collect(value, name + ".", depth + 1);
          break;
        case "bigint":
          return reject("e", name + " is a BigInt; turn it into a number: Number(" + name + ")");
      }
    }
    path[depth] = null;
  }

  const FORMS = ["decodeUplink", "Decoder", "Decode"];
  let factory = null;

  function results(form, decode, call) {
    receivedAt = call[2];
    seed = 1;
    let result;
    if (form === 0) {
      result = decode({ bytes: call[0], fPort: call[1], recvTime: new EngineDate(receivedAt), variables: call[3] });
    } else {
      result = form === 1 ? decode(call[0], call[1]) : decode(call[1], call[0], call[3]);
    }
    if (typeof result !== "object" || result === null || isArray(result)) {
      const what = isArray(result) ? "an array" : result === undefined ? "nothing" : result === null ? "null" : "a " + typeof result;
      return failure("e", FORMS[form] + " returned " + what + ", not an object", "");
    }
    if (typeof result.then === "function") return failure("e", FORMS[form] + " returned a promise; it may not be async", "");
    warnings = NONE;
    if (form === 0) {
      const errors = result.errors === undefined ? NONE : listOf(result.errors);
      if (errors.length) {
        let joined = errors[0];
        for (let i = 1; i < errors.length; i++) joined += "; " + errors[i];
        return failure("e", joined, "");
      }
      if (result.warnings !== undefined) warnings = listOf(result.warnings);
      result = result.data;
      if (typeof result !== "object" || result === null || isArray(result)) {
        return failure("e", isArray(result) ? "data is an array, not an object" : "decodeUplink returned no object as data", "");
      }
    }
    let fields;
    if (isFlat(result)) {
      fields = stringify(result);
    } else {
      values = create(null);
      count = 0;
      kind = "";
      collect(result, "", 0);
      if (kind !== "") return failure(kind, words, "");
      if (count === 0) return failure("e", "the codec returned no values", "");
      fields = stringify(values);
    }
    if (fields.length > MAX_RESULT) return failure("t", "the values are more than " + MAX_RESULT + " characters", "");
    if (warnings.length === 0) return fields;
    let said = "";
    for (let i = 0; i < warnings.length; i++) said += (i ? "," : "") + stringify(warnings[i]);
    return text('["w",' + fields + ",[" + said + "]]");
  }

  let calls = [];

  return {
    // The codec becomes a function, which is called for each message: what it declares begins as it is written, every time.
    load(source) {
      const take = FORMS.map((name) => `typeof ${name}==="function"?${name}:null`).join();
      factory = evaluate("(function(){" + source + "\n;return [" + take + "]})");
    },
    form() { // which of the forms the codec has, -1 for none, or the failure of loading it
      try {
        const found = factory();
        for (let form = 0; form < 3; form++) if (found[form] !== null) return form;
        return -1;
      } catch (error) {
        return failureOf(error);
      }
    },
    begin(batch) {
      calls = parse(batch);
    },
    step(index) {
      let result;
      try {
        const found = factory();
        const form = found[0] !== null ? 0 : found[1] !== null ? 1 : 2;
        if (found[form] === null) {
          result = failure("e", "the codec has none of the functions decodeUplink(input), Decoder(bytes, port), Decode(fPort, bytes, variables)", "");
        } else {
          result = results(form, found[form], calls[index]);
        }
      } catch (error) {
        result = failureOf(error);
      }
      calls[index] = null;
      for (const name in global) delete global[name]; // variables that the codec never declared
      return result;
    },
  };
})(globalThis)
