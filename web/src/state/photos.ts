// Pictures that people give: sent to the server once, known by their id from then on.
import { Failure } from '../api';

export async function uploaded(file: Blob): Promise<string> {
  let answer: Response;
  try {
    answer = await fetch('/api/pictures', { method: 'POST', body: file });
  } catch {
    throw new Failure('The picture did not reach the server.', 'Is “neuralmine serve” still running?');
  }
  const said = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Failure(said.what ?? `The server refused this (${answer.status}).`, said.hint ?? '');
  return said.id as string;
}
export const imageIn = (files: FileList | undefined | null) => Array.from(files ?? [])[0];
/** The bundled photos, and first the one that is open when it is none of them. */
export function photoChoices(open: string, bundled: Record<string, string>): [value: string, text: string][] {
  const known = Object.entries(bundled).map(([name, text]) => [name, `${name}: ${text}`] as [string, string]);
  return open in bundled ? known : [[open, known.length ? 'your picture' : '…'], ...known];
}
