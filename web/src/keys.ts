// The keys of a page come from one table: what `?` lists is what the keyboard does.
/** What each key does, or in words which keys a view itself answers to; and what it is for. */
export type Key = [keys: Record<string, () => unknown> | string, does: string];

const FIELD = 'input, select, textarea, dialog[open]';
const TEXT = 'input:not([type=range], [type=checkbox]), textarea, dialog[open]'; // it undoes by itself
const NAMES: Record<string, string> = { ' ': 'Space', ArrowUp: '↑', ArrowDown: '↓' };

export const namesOf = (keys: Key[0]) => (typeof keys === 'string' ? [keys] : Object.keys(keys).map((key) => NAMES[key] ?? key));

/** Does the place with the focus need this key for itself? */
function taken(key: string, place: Element): boolean {
  const needs = key.startsWith('Ctrl+') ? TEXT : key === ' ' ? `${FIELD}, button, summary, a, [role=application]` : key.startsWith('Arrow') ? `${FIELD}, [role=application]` : FIELD;
  return place.closest(needs) !== null;
}

/** Do what the table says of the pressed key. */
export function act(table: Key[], event: KeyboardEvent) {
  const typed = '[]{}'.includes(event.key); // on many keyboards these are typed with AltGr or Option
  const control = !typed && (event.ctrlKey || event.metaKey);
  const key = control ? `Ctrl+${event.shiftKey ? 'Shift+' : ''}${event.key.toUpperCase()}` : event.key;
  const action = table.map(([keys]) => (typeof keys === 'string' ? undefined : keys[key])).find(Boolean);
  if (!action || (event.altKey && !typed) || taken(key, event.target as Element)) return;
  action();
  event.preventDefault();
}
