/** As many as there can be key groups (semantics 9): an instance of a keyed operator without any would do nothing. */
export const INSTANCES_MAX = 2 ** 15;
