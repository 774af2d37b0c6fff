// What user code says, as something that can be sent wherever it goes: fields of a log, and a record that the codec refuses. Pure; nothing here throws.

import { inspect } from 'node:util';

const TEXT_MAX = 200;

/** Values that stand for themselves in every log stay; of an error its message does, and of anything else a text. */
export function plainField(value: unknown): string | number | bigint | boolean | undefined {
  switch (typeof value) {
    case 'string':
    case 'number':
    case 'bigint':
    case 'boolean':
    case 'undefined':
      return value;
    default:
      return textOf(value);
  }
}

/** Its type and how it begins. */
export function described(record: unknown): string {
  const text = (): string => inspect(record, { depth: 1, breakLength: Number.POSITIVE_INFINITY, maxArrayLength: 10, maxStringLength: TEXT_MAX });
  return `${typeof record}: ${short(safely(text))}`;
}

function textOf(value: unknown): string {
  return safely(() => (value instanceof Error ? value.message : String(value)));
}

function safely(read: () => string): string {
  try {
    return read();
  } catch {
    // Of an object without a prototype, or one whose own toString fails.
    return 'something that cannot be shown';
  }
}

function short(text: string): string {
  return text.length > TEXT_MAX ? `${text.slice(0, TEXT_MAX - 1)}…` : text;
}
