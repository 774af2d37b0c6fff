// A fresh copy of a function's code, so that V8 sees one vertex's types alone.
//
// What: user functions called from code that several vertices share make every call site megamorphic (39 M against 128–245 M records/s, docs/decisions).
// `fresh` compiles the source text of a factory anew; what it returns closes over its parameters only.
//
// Invariant F1: a factory given to `fresh` has no free variables: everything it needs comes in through its parameter.

let copies = 0;

export function fresh<D, R>(factory: (deps: D) => R, name: string): (deps: D) => R {
  copies += 1;
  return new Function(`"use strict"; return (${factory.toString()})\n//# sourceURL=millrace-${name.replace(/[^\w-]/g, '_')}-${copies}.js`)() as (deps: D) => R;
}

export function compile<R>(parameters: readonly string[], body: string, name: string): (...values: unknown[]) => R {
  copies += 1;
  return new Function(...parameters, `"use strict";\n${body}\n//# sourceURL=millrace-${name.replace(/[^\w-]/g, '_')}-${copies}.js`) as (
    ...values: unknown[]
  ) => R;
}
