// The Dream page: what to dream, the dreams there are, the one on screen and which of its layers. All of it is in the URL.
import { Failure, json, latestWins, list, look, type Finding } from '../api';
import { uploaded } from './photos';
import { permalink } from './permalink.svelte';
import { reports } from './reports';

export interface DreamReport {
  id: string;
  asked: { network: { address: string }; photo: string; layers: string; unit: number | null; target: string | null; settings: Record<string, number> };
  status: 'waiting' | 'dreaming' | 'done' | 'stopped' | 'failed';
  message: string;
  layers: string[];
  done: boolean[];
  layer: number;
  share: number;
  left: number | null;
  objective: number[];
  version: number;
  about: Record<string, { objective: [number, number]; change: number; factor: number; note: string }>;
  settings: Record<string, number>;
}
export const SETTINGS: [name: string, text: string, low: number, high: number, step: number, help: string][] = [
  ['octaves', 'Octaves', 1, 8, 1, 'How many sizes, from small to the photo’s own'],
  ['steps', 'Steps', 1, 60, 1, 'Steps in each size'],
  ['strength', 'Strength', 0.5, 12, 0.5, 'How far a step moves the photo on average, in 255ths'],
  ['jitter', 'Jitter', 0, 64, 1, 'Largest random shift before a step, in pixels'],
  ['budget', 'Budget', 0, 0.3, 0.01, 'L2 of every layer’s change per value, so that layers can be compared; 0 leaves each as it came'],
  ['seed', 'Seed', 0, 9999, 1, 'Of the random shifts: the same seed gives the same picture'],
];
const DEFAULTS: Record<string, number> = { octaves: 3, steps: 10, strength: 2, jitter: 16, budget: 0.1, seed: 0 };

export class Dreams {
  address = $state('squeezenet');
  photo = $state('chelsea');
  settings: Record<string, number> = $state({ ...DEFAULTS });
  id = $state('');
  rung = $state(-1); // which layer is large; the number of layers for the photo, −1 for the one dreamt last
  against = $state(-1); // what the slider compares it with; -1 for the photo
  share = $state(0.5);

  photos = $state.raw<Record<string, string>>({});
  all = $state.raw<DreamReport[]>([]);
  now = $state.raw<DreamReport | null>(null);
  measures = $state.raw<Finding | null>(null);
  measuring = $state(false);
  wall = $state.raw<Finding | null>(null);
  walling = $state(''); // the layer whose wall is on its way
  failure = $state.raw<Failure | null>(null);
  playing = $state(false);
  private timer: ReturnType<typeof setInterval> | undefined;
  private resumed = $state(0); // a dream that goes on is followed anew
  private readonly seeMeasures = latestWins<Finding | null>((found) => ([this.measures, this.measuring] = [found, false]), (error) => ([this.failure, this.measuring] = [error, false]));
  private readonly seeWall = latestWins<Finding | null>((found) => ([this.wall, this.walling] = [found, '']), (error) => ([this.failure, this.walling] = [error, '']));

  get layers(): string[] {
    return this.now?.layers ?? [];
  }
  get count() {
    return this.layers.length;
  }
  get shown() {
    if (this.rung >= 0) return Math.min(this.rung, this.count);
    if (this.now?.status === 'dreaming') return this.now.layer;
    return Math.max(0, this.now?.done.lastIndexOf(true) ?? 0);
  }
  name(index: number) {
    return index >= this.count || index < 0 ? 'the photo' : this.layers[index]!;
  }
  /** Where a layer's picture is: finished, the frame as it is now, or "" while it waits. */
  source(index: number): string {
    if (!this.now) return '';
    if (index >= this.count || index < 0) return `/api/dreams/${this.now.id}/layers/${this.count}`;
    if (this.now.done[index]) return `/api/dreams/${this.now.id}/layers/${index}`;
    if (this.now.status === 'dreaming' && this.now.layer === index && this.now.share > 0) return `/api/dreams/${this.now.id}/frame?v=${this.now.version}`;
    return '';
  }

  start() {
    const query = new URLSearchParams(location.search);
    this.address = query.get('net') ?? 'squeezenet';
    this.photo = query.get('photo') ?? 'chelsea';
    for (const [name, , low, high] of SETTINGS) {
      const given = Number(query.get(name));
      if (query.has(name) && Number.isFinite(given)) this.settings[name] = Math.min(high, Math.max(low, given));
    }
    this.id = query.get('dream') ?? '';
    this.rung = query.has('rung') ? Number(query.get('rung')) || 0 : -1;
    json<Record<string, string>>('/api/photos').then((found) => (this.photos = found), (error) => (this.failure = error));
    void this.list(!location.search);
    $effect(() => {
      const id = this.id;
      void this.resumed;
      if (!id) return void (this.now = null);
      [this.measures, this.wall] = [null, null];
      const heard = (report: DreamReport) => {
        this.now = report;
        const ended = ['done', 'failed', 'stopped'].includes(report.status);
        if (ended) void this.list();
        return ended;
      };
      const lost = () => {
        if (!this.now) this.failure = new Failure(`The dream ${id} is not on this machine.`, 'Dream it anew, or choose another.');
      };
      return reports<DreamReport>(`/api/dreams/${id}/events`, heard, lost);
    });
    permalink(() => {
      const query = new URLSearchParams({ net: this.address, photo: this.photo, ...Object.fromEntries(SETTINGS.map(([name]) => [name, String(this.settings[name])])) });
      if (this.id) query.set('dream', this.id);
      if (this.rung >= 0) query.set('rung', String(this.rung));
      return query;
    });
    $effect(() => () => clearInterval(this.timer));
  }
  async list(fresh = false) {
    try {
      this.all = await json<DreamReport[]>('/api/dreams');
      if (!fresh || this.id) return;
      // The page opens working: the newest dream, or on a machine that never dreamt the first one.
      if (this.all.length) this.id = this.all[0]!.id;
      else await this.begin();
    } catch (error) {
      this.failure = error as Failure;
    }
  }
  async begin(more: { network?: { address: string }; photo?: string; layers?: string; unit?: number; target?: string } = {}) {
    try {
      const body = { network: { address: this.address }, photo: this.photo, layers: 'all', ...more, settings: $state.snapshot(this.settings) };
      const report = await json<DreamReport>('/api/dreams', body);
      [this.failure, this.rung, this.id, this.now] = [null, -1, report.id, report];
      await this.list();
    } catch (error) {
      this.failure = error as Failure;
    }
  }
  async control(order: 'stop' | 'resume' | 'change', id = this.id) {
    try {
      const settings = order === 'change' ? $state.snapshot(this.settings) : {};
      const report = await json<DreamReport>(`/api/dreams/${id}/control`, { do: order, settings });
      if (id === this.id) {
        this.now = report;
        if (order === 'resume') this.resumed += 1;
      }
      await this.list();
    } catch (error) {
      this.failure = error as Failure;
    }
  }
  async discard(id: string) {
    await json(`/api/dreams/${id}`, undefined, 'DELETE').catch((error) => (this.failure = error));
    if (id === this.id) [this.id, this.now] = ['', null];
    await this.list();
  }
  async upload(file: Blob) {
    try {
      [this.photo, this.failure] = [await uploaded(file), null];
    } catch (error) {
      this.failure = error as Failure;
    }
  }
  measure() {
    if (!this.now) return;
    const { network, photo, layers, settings } = this.now.asked;
    const { octaves, steps, strength, jitter, budget, seed } = settings;
    this.measuring = true;
    const chosen = Object.fromEntries(Object.entries({ octaves, steps, strength, jitter, budget: budget || undefined, seed }).filter(([, value]) => value !== undefined));
    this.seeMeasures(this.ofThis(() => look('dream_measures', { network, input: { photo }, options: { layers, ...chosen } })));
  }
  /** What the strongest maps of the layer on screen look for, each as a picture made from noise. */
  channels() {
    const layer = this.layers[Math.min(this.shown, this.count - 1)];
    if (!this.now || !layer || layer.includes(',')) return;
    const { network, photo } = this.now.asked;
    this.walling = layer;
    this.seeWall(this.ofThis(async () => {
      // The nine maps that this photo excites most: their pictures say what they look for.
      const found = await look('feature_maps', { network, input: { photo }, options: { layers: layer, count: 9 } });
      return look('feature_visualization', { network, options: { layer, units: list(found.numbers['units 0']).join(','), steps: 64 } });
    }));
  }
  /** Nothing, when another dream is on screen by the time it is found. */
  private ofThis(find: () => Promise<Finding>): () => Promise<Finding | null> {
    const id = this.id;
    return async () => {
      const found = await find();
      return id === this.id ? found : null;
    };
  }
  go(rung: number) {
    this.rung = Math.min(this.count, Math.max(0, rung));
  }
  play() {
    if (this.playing) return this.pause();
    if (this.shown >= this.count) this.rung = 0;
    this.playing = true;
    this.timer = setInterval(() => {
      if (this.shown >= this.count) this.pause();
      else this.go(this.shown + 1);
    }, 900);
  }
  pause() {
    this.playing = false;
    clearInterval(this.timer);
  }
}
