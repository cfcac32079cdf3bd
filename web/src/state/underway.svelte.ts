// Answers that take their time: how far each is, for the strip that says so on every page.
export interface Work {
  ticket: string;
  name: string;
  done: number;
  words: string;
  left: number | null; // seconds
}
const FIRST = 900, OFTEN = 400; // milliseconds: what is quicker than the first needs no strip

class Underway {
  works = $state.raw<Work[]>([]);

  show(work: Work) {
    this.works = [...this.works.filter((one) => one.ticket !== work.ticket), work];
  }
  drop(ticket: string) {
    if (this.works.some((one) => one.ticket === ticket)) this.works = this.works.filter((one) => one.ticket !== ticket);
  }
  /** Call the work off: whoever asked for it gets an error that says so. */
  async stop(ticket: string) {
    await fetch(`/api/underway/${ticket}`, { method: 'DELETE' }).catch(() => undefined);
  }
}
export const underway = new Underway();

// Whoever leaves the page waits no longer: what was still asked for would only keep the next page waiting.
const asked = new Set<string>();
addEventListener('pagehide', () => {
  for (const ticket of asked) void fetch(`/api/underway/${ticket}`, { method: 'DELETE', keepalive: true });
});

/** Ask with a ticket, and follow how far the answer is until it comes. */
export async function followed<T>(name: string, ask: (ticket: string) => Promise<T>): Promise<T> {
  const ticket = Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, '0')).join('');
  asked.add(ticket);
  let timer = setTimeout(poll, FIRST);
  async function poll() {
    const answer = await fetch(`/api/underway/${ticket}`).catch(() => null);
    const found = answer?.ok ? await answer.json() : null;
    if (found && timer) underway.show({ ticket, name, ...found });
    if (timer) timer = setTimeout(poll, OFTEN);
    else underway.drop(ticket);
  }
  try {
    return await ask(ticket);
  } finally {
    asked.delete(ticket);
    clearTimeout(timer);
    timer = 0;
    underway.drop(ticket);
  }
}
