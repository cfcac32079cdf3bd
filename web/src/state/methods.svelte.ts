// Methods: is the network as sure as it is right, would more data help, and which ingredient of training does.
import { binary, Failure, json, latestWins, list, look, type Catalogue, type Finding, type Images, type NetworkAbout } from '../api';
import { permalink } from './permalink.svelte';
import { reports } from './reports';

export interface MethodReport {
  id: string;
  kind: Kind;
  status: 'running' | 'done' | 'stopped' | 'failed';
  message: string;
  done: number;
  names: string[];
  accuracy: (number | null)[][];
  version: number;
}
export type Kind = 'scaling' | 'ablation';
export type Panel = 'calibration' | Kind;
export const PANELS: [Panel, string][] = [
  ['calibration', 'Calibration'],
  ['scaling', 'More data'],
  ['ablation', 'Ingredients'],
];

/** One experiment of many trainings: how far it is, and what it found. */
export class Experiment {
  now = $state.raw<MethodReport | null>(null);
  finding = $state.raw<Finding | null>(null);
  failure = $state.raw<Failure | null>(null);
  private leave = () => {};
  private make = latestWins<MethodReport | null>((report) => report && this.follow(report), (error) => (this.failure = error));

  get running() {
    return this.now?.status === 'running';
  }
  begin(body: Record<string, unknown>) {
    this.clear();
    this.make(() => json<MethodReport>('/api/methods', body));
  }
  private follow(report: MethodReport) {
    this.now = report;
    this.leave = reports<MethodReport>(`/api/methods/${report.id}/events`, (said) => {
      this.now = said;
      if (said.status === 'failed') this.failure = new Failure(said.message, 'Change the settings and run it again.');
      if (said.status === 'done') void this.fetch(said.id);
      return said.status !== 'running';
    });
  }
  private async fetch(id: string) {
    try {
      const found = await binary<Finding>(`/api/methods/${id}/finding`, undefined);
      if (id === this.now?.id) this.finding = found;
    } catch (error) {
      this.failure = error as Failure;
    }
  }
  async stop() {
    try {
      if (this.now) await json(`/api/methods/${this.now.id}/stop`, {});
    } catch (error) {
      this.failure = error as Failure;
    }
  }
  /** As if none had begun, also the one that is beginning. */
  clear() {
    this.leave();
    this.make(() => Promise.resolve(null));
    [this.now, this.finding, this.failure] = [null, null, null];
  }
}

export class Methods {
  address = $state('64-16-10');
  panel = $state<Panel>('calibration');
  bins = $state(10);
  picked = $state<number | null>(null); // a bin, a size or a run, by its row
  seeds = $state(3);
  seed = $state(0);
  lr = $state(0.02);
  epochs = $state(20);
  updates = $state(800);
  limit = $state(0);

  catalogue = $state.raw<Catalogue | null>(null);
  runs = $state.raw<{ id: string; last: unknown; architecture: { sizes: number[] } }[]>([]);
  calibration = $state.raw<Finding | null>(null);
  images = $state.raw<Images | null>(null);
  failure = $state.raw<Failure | null>(null);
  scaling = new Experiment();
  ablation = new Experiment();
  private asked = 0;

  start() {
    const query = new URLSearchParams(location.search);
    const number = (name: string, otherwise: number, low: number, high: number) => {
      const given = Number(query.get(name) ?? NaN);
      return Number.isFinite(given) && query.get(name) !== '' ? Math.min(high, Math.max(low, given)) : otherwise;
    };
    const whole = (name: string, otherwise: number, low: number, high: number) => Math.round(number(name, otherwise, low, high));
    this.address = query.get('net') ?? this.address;
    this.panel = PANELS.find(([id]) => id === query.get('show'))?.[0] ?? 'calibration';
    this.bins = whole('bins', 10, 2, 50);
    this.seeds = whole('seeds', 3, 2, 20);
    this.seed = whole('seed', 0, 0, 99999);
    this.lr = number('lr', 0.02, 1e-6, 100);
    this.epochs = whole('epochs', 20, 1, 500);
    this.updates = whole('updates', 800, 10, 20000);
    this.limit = whole('limit', 0, 0, 100000);
    json<typeof this.runs>('/api/runs').then((found) => (this.runs = found), (error) => (this.failure = error));
    json<Catalogue>('/api/catalogue').then((found) => (this.catalogue = found), (error) => (this.failure = error));
    this.open(this.panel);
    if (query.has('row')) this.picked = whole('row', 0, 0, 200);
    permalink(() => {
      const query = new URLSearchParams({ net: this.address, show: this.panel });
      if (this.panel === 'calibration') query.set('bins', String(this.bins));
      else {
        for (const name of ['seeds', 'seed', 'lr'] as const) query.set(name, String(this[name]));
        if (this.panel === 'scaling') query.set('updates', String(this.updates));
        else query.set('epochs', String(this.epochs)), query.set('limit', String(this.limit));
      }
      if (this.picked !== null) query.set('row', String(this.picked));
      return query;
    });
    $effect(() => () => {
      this.scaling.clear();
      this.ablation.clear();
    });
  }
  /** Show a panel; what was never measured for this network begins. */
  open(panel: Panel) {
    if (panel !== this.panel) this.picked = null;
    this.panel = panel;
    if (panel === 'calibration' ? !this.calibration : !this[panel].now) this.measure();
  }
  choose(address: string) {
    this.address = address;
    [this.calibration, this.images, this.picked] = [null, null, null];
    for (const one of [this.scaling, this.ablation]) {
      if (one.running) void one.stop();
      one.clear();
    }
    this.measure();
  }
  /** Measure what the open panel shows, with its settings. */
  measure() {
    this.failure = null;
    if (this.panel === 'calibration') void this.calibrate();
    else {
      this.picked = null;
      const { seeds, seed, lr, epochs, updates, limit } = this;
      const panel = this.panel, address = this.address;
      const body = { kind: panel, network: { address }, seeds, seed, lr };
      this.dataOf(address).then(
        (data) => {
          const more = { ...body, data: { ...data, part: 'train' } };
          if (address === this.address) this[panel].begin(panel === 'scaling' ? { ...more, updates } : { ...more, epochs, limit });
        },
        (error) => (this.failure = error),
      );
    }
  }
  private async calibrate() {
    const asked = ++this.asked;
    try {
      const data = { ...(await this.dataOf(this.address)), part: 'test' };
      const [found, images] = await Promise.all([
        look('calibration', { network: { address: this.address }, data, options: { bins: this.bins } }),
        this.images ?? binary<Images>('/api/data', data),
      ]);
      if (asked === this.asked) [this.calibration, this.images, this.failure] = [found, images, null];
    } catch (error) {
      if (asked === this.asked) this.failure = error as Failure;
    }
  }
  /** What the network was made for: its data, split as they were; a sealed part stays sealed. */
  private async dataOf(address: string) {
    return (await json<NetworkAbout>('/api/network', { address })).data ?? { name: 'digits' };
  }
  /** The images of a bin, the surest mistakes first. */
  inBin(row: number): number[] {
    const numbers = this.calibration?.numbers ?? {};
    const [bins, right, sure] = [list(numbers['bin']), list(numbers['right']), list(numbers['sure'])];
    return bins.flatMap((bin, i) => (bin === row ? [i] : [])).sort((a, b) => right[a]! - right[b]! || sure[b]! - sure[a]!);
  }
}
