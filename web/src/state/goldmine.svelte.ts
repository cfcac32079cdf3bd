// The Gold Mine: a sentence, a network that reads it, the layer on screen, and what is open. All of it is in the URL.
import {
  Failure, json, latestWins, list, look, type Catalogue, type Finding, type NetworkAbout, type Numbers,
} from '../api';
import { permalink } from './permalink.svelte';

export type Pick = { kind: 'token'; layer: number; word: number } | { kind: 'pair'; layer: number; a: number; b: number } | { kind: 'sieve'; layer: number };
export type Tab = 'relations' | 'boxes' | 'attention' | 'left' | 'compare' | 'claims' | 'essay';
const TABS: Tab[] = ['relations', 'boxes', 'attention', 'left', 'compare', 'claims', 'essay'];
// The essay's names for five sieves; on any depth the first, the last and those between are stretched over the layers.
const SIEVES = ['Coarse Gravel Sifter', 'Pebble Separator', 'Fine Mesh Sieve', 'Mercury Amalgamation', 'Final Refining'];
export const ESSAY = 'The Cat Chases Mice';

/** Slices of a flat array with shape … by its first indices. */
export function at(numbers: Numbers | undefined, ...where: number[]): number[] {
  if (!numbers) return [];
  const size = numbers.shape.slice(where.length).reduce((a, b) => a * b, 1);
  const start = where.reduce((place, index, i) => place * numbers.shape[i]! + index, 0) * size;
  return Array.from((numbers.values as Float64Array).subarray(start, start + size), Number);
}

export class GoldMine {
  address = $state('minilm');
  untrained = $state(false);
  sentence = $state(ESSAY);
  other = $state('');
  layer = $state(0);
  tab: Tab = $state('relations');
  pick = $state.raw<Pick | null>(null);
  centred = $state(true);

  about = $state.raw<NetworkAbout | null>(null);
  catalogue = $state.raw<Catalogue | null>(null);
  vectors = $state.raw<Finding | null>(null);
  relations = $state.raw<Finding | null>(null);
  map = $state.raw<Finding | null>(null);
  attention = $state.raw<Finding | null>(null);
  left = $state.raw<Finding | null>(null);
  compared = $state.raw<Finding | null>(null);
  failure = $state.raw<Failure | null>(null);
  took = $state(0); // milliseconds from the last keystroke to the numbers
  playing = $state(false);
  /** Slow motion: the steps inside the layer after this one; `step` of them have been taken. */
  slow = $state(false);
  step = $state(0);
  steps = $state.raw<Finding | null>(null);
  /** Under way for longer than a moment: it can be cancelled. */
  waiting = $state(false);
  private controller: AbortController | null = null;
  private measured = ESSAY;
  private timer: ReturnType<typeof setInterval> | undefined;
  private opened = $state(false);

  get shown() {
    return this.untrained ? `${this.address}:untrained` : this.address;
  }
  get network() {
    return { address: this.shown };
  }
  get tokens(): string[] {
    return (this.vectors?.provenance['tokens'] as string[]) ?? [];
  }
  get special(): boolean[] {
    return (this.vectors?.provenance['special'] as boolean[]) ?? [];
  }
  get layers(): string[] {
    return (this.vectors?.provenance['layers'] as string[]) ?? [];
  }
  get depth() {
    return Math.max(0, this.layers.length - 1);
  }
  sieve(layer: number): string {
    if (layer <= 0) return 'Raw Material Collection';
    const place = this.depth <= 1 ? 4 : Math.round(((layer - 1) / (this.depth - 1)) * (SIEVES.length - 1));
    return SIEVES[place]!;
  }
  /** Cosines of every two words at a layer, raw or with the common direction taken away. */
  cosine(layer: number): number[] {
    return at(this.relations?.numbers[this.centred ? 'centred' : 'cosine'], layer);
  }
  /** What 95 % of pairs of unrelated words stay below, at a layer. */
  chance(layer: number): number {
    return at(this.relations?.numbers[this.centred ? 'null_centred' : 'null'], layer)[2] ?? 1;
  }

  private readonly seeVectors = latestWins<[Finding, Finding, Finding, number]>(
    ([vectors, relations, map, began]) => {
      this.settled();
      this.measured = this.sentence;
      [this.vectors, this.relations, this.map, this.failure] = [vectors, relations, map, null];
      this.took = performance.now() - began;
      if (this.layer > this.depth) this.go(this.depth);
      if (this.pick && 'word' in this.pick && this.pick.word >= this.tokens.length) this.pick = null;
    },
    (error) => {
      this.settled();
      this.failure = error;
    },
  );
  private readonly seeSteps = latestWins<Finding>((found) => (this.steps = found), (error) => (this.failure = error));
  private readonly seeAttention = latestWins<Finding>((found) => (this.attention = found), (error) => (this.failure = error));
  private readonly seeLeft = latestWins<Finding>((found) => (this.left = found), (error) => (this.failure = error));
  private readonly seeCompared = latestWins<Finding>((found) => ([this.compared, this.failure] = [found, null]), (error) => ([this.compared, this.failure] = [null, error]));

  start() {
    const query = new URLSearchParams(location.search);
    this.address = query.get('net') ?? 'minilm';
    this.untrained = query.get('untrained') === '1';
    this.sentence = query.get('text') ?? ESSAY;
    this.other = query.get('other') ?? '';
    this.layer = Math.max(0, Number(query.get('layer')) || 0);
    this.tab = TABS.find((tab) => tab === query.get('tab')) ?? 'relations';
    this.centred = query.get('raw') !== '1';
    this.slow = query.get('slow') === '1';
    this.step = Math.max(0, Number(query.get('step')) || 0);
    const [kind, ...rest] = (query.get('open') ?? '').split(':');
    const numbers = rest.map(Number);
    if (kind === 'token' && numbers.length === 2) this.pick = { kind, layer: numbers[0]!, word: numbers[1]! };
    if (kind === 'pair' && numbers.length === 3) this.pick = { kind, layer: numbers[0]!, a: numbers[1]!, b: numbers[2]! };
    if (kind === 'sieve' && numbers.length === 1) this.pick = { kind, layer: numbers[0]! };
    json<Catalogue>('/api/catalogue').then((found) => (this.catalogue = found), (error) => (this.failure = error));
    $effect(() => {
      const address = this.shown;
      this.opened = false;
      json<NetworkAbout>('/api/network', { address }).then(
        (found) => {
          if (address === this.shown) [this.about, this.opened] = [found, true];
        },
        (error) => address === this.shown && (this.failure = error),
      );
    });
    $effect(() => {
      if (!this.opened) return;
      const body = { network: this.network, input: { text: this.sentence } };
      const began = performance.now();
      this.seeVectors(async () => {
        const { signal } = (this.controller = new AbortController());
        this.timeout = setTimeout(() => (this.waiting = true), 400);
        return [await look('token_vectors', body, signal), await look('token_relations', body, signal), await look('sentence_map', body, signal), began];
      });
    });
    $effect(() => {
      if (!this.opened || !this.slow || this.layer >= this.depth) return;
      const body = { network: this.network, input: { text: this.sentence }, options: { block: this.layer + 1 } };
      this.steps = null;
      this.seeSteps(() => look('block_steps', body));
    });
    $effect(() => {
      if (!this.opened || (this.tab !== 'attention' && this.pick?.kind !== 'sieve')) return;
      const body = { network: this.network, input: { text: this.sentence } };
      this.seeAttention(() => look('attention', body));
    });
    $effect(() => {
      if (!this.opened || (this.tab !== 'left' && this.tab !== 'claims')) return;
      const body = { network: this.network, input: { text: this.sentence } };
      this.seeLeft(() => look('what_is_left', body));
    });
    $effect(() => {
      if (!this.opened || this.tab !== 'compare' || !this.other.trim()) return;
      const body = { network: this.network, input: { text: this.sentence }, options: { other: this.other } };
      this.seeCompared(() => look('compare_sentences', body));
    });
    permalink(() => this.query());
    $effect(() => () => clearInterval(this.timer));
  }

  private query(): URLSearchParams {
    const query = new URLSearchParams({ net: this.address, text: this.sentence, layer: String(this.layer), tab: this.tab });
    if (this.untrained) query.set('untrained', '1');
    if (this.other) query.set('other', this.other);
    if (!this.centred) query.set('raw', '1');
    if (this.slow) query.set('slow', '1');
    if (this.step) query.set('step', String(this.step));
    if (this.pick) query.set('open', Object.values(this.pick).join(':'));
    return query;
  }
  private timeout: ReturnType<typeof setTimeout> | undefined;
  private settled() {
    clearTimeout(this.timeout);
    this.waiting = false;
  }
  /** Leave a long measurement and take the last measured sentence back. */
  cancel() {
    this.controller?.abort();
    this.settled();
    this.sentence = this.measured;
  }
  go(layer: number) {
    this.layer = Math.min(this.depth, Math.max(0, layer));
    this.step = 0;
  }
  get stepNames(): string[] {
    return (this.steps?.provenance['steps'] as string[]) ?? [];
  }
  /** One layer on or back; in slow motion one step of it. */
  move(by: 1 | -1) {
    if (!this.slow) return this.go(this.layer + by);
    const count = this.stepNames.length;
    if (by > 0 && this.step < count) this.step += 1;
    else if (by > 0 && count) {
      if (this.layer + 1 < this.depth) [this.layer, this.step] = [this.layer + 1, 1];
      else this.go(this.depth);
    } else if (by < 0 && this.step > 0) this.step -= 1;
    else if (by < 0) this.go(this.layer - 1);
  }
  /** Where the words stand on the map, after the steps taken, and what the last step is about to add. */
  get standing(): { places: number[]; arrows: number[] } {
    const places = at(this.map?.numbers['places'], this.layer);
    const count = this.tokens.length;
    if (!this.slow || this.step === 0 || !this.steps || this.steps.numbers['vectors']?.shape[1] !== count) return { places, arrows: [] };
    const state = list(this.steps.numbers['state']);
    const axes = this.map?.numbers['axes'], centre = list(this.map?.numbers['centre']);
    const along = (vector: number[], from: number[]) => [0, 1].map((k) => at(axes, k).reduce((sum, a, i) => sum + a * (vector[i]! - (from[i] ?? 0)), 0));
    const project = (step: number, from: number[]) => Array.from({ length: count }, (_, word) => along(at(this.steps!.numbers['vectors'], step, word), from)).flat();
    const last = this.step - 1;
    const settled = state.slice(0, this.step).lastIndexOf(1);
    const now = settled < 0 ? places : project(settled, centre);
    const adds = !state[last] && this.stepNames[last] !== 'norm';
    return { places: now, arrows: adds ? project(last, []).map((value, i) => value + now[i]!) : [] };
  }
  play() {
    if (this.playing) return this.pause();
    if (this.layer >= this.depth) this.go(0);
    this.playing = true;
    this.timer = setInterval(() => {
      if (this.layer >= this.depth) this.pause();
      else this.move(1);
    }, 900);
  }
  pause() {
    this.playing = false;
    clearInterval(this.timer);
  }
  /** The layer that changes the words most. */
  biggest(): number {
    const change = this.vectors?.numbers['change'];
    if (!change) return 0;
    const means = this.layers.map((_, l) => at(change, l).reduce((a, b) => a + b, 0));
    return means.indexOf(Math.max(...means));
  }
  report() {
    const body = (lens: string, options: Record<string, unknown> = {}) => ({ lens, network: this.network, input: { text: this.sentence }, options });
    return {
      title: this.sentence,
      looks: [
        ...['token_vectors', 'token_relations', 'what_is_left', 'sentence_map', 'attention'].map((lens) => body(lens)),
        ...(this.other.trim() ? [body('compare_sentences', { other: this.other })] : []),
      ],
    };
  }
}
export { list };
