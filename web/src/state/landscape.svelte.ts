// The landscape of one network: its loss over a plane, along the line to another network, and how it bends.
import { Failure, json, look, type Catalogue, type Finding, type NetworkAbout, type RunAbout } from '../api';
import { permalink } from './permalink.svelte';

export class Landscape {
  address = $state('64-16-10');
  plane = $state<'random' | 'between'>('random');
  other = $state('64-16-10:untrained');
  part = $state<'train' | 'test'>('train');
  seed = $state(0);
  reach = $state(1);
  view = $state<'map' | '3d'>('3d');
  turn: [yaw: number, tilt: number, zoom: number] = $state.raw([-32, 50, 1]);
  scale = $state<'log' | 'rank'>('log');

  networks: [address: string, text: string][] = $state.raw([]);
  about = $state.raw<NetworkAbout | null>(null);
  surface = $state.raw<Finding | null>(null);
  line = $state.raw<Finding | null>(null);
  bend = $state.raw<Finding | null>(null);
  failures: Record<string, Failure> = $state.raw({});
  busy = $state(false);
  picked: [x: number, y: number, loss: number] | null = $state.raw(null);
  private sizes: Record<string, string> = {};
  private asked = 0;

  /** Networks of the same shape: only to them there is a line. */
  get others() {
    return this.networks.filter(([address]) => address !== this.address && this.sizes[address] === this.sizes[this.address]);
  }

  start() {
    const query = new URLSearchParams(location.search);
    this.address = query.get('net') ?? '64-16-10';
    this.plane = query.get('plane') === 'between' ? 'between' : 'random';
    this.other = query.get('other') ?? `${this.address.replace(/:untrained$/, '')}${this.address.endsWith(':untrained') ? '' : ':untrained'}`;
    this.part = query.get('part') === 'test' ? 'test' : 'train';
    this.seed = Math.max(0, Math.round(Number(query.get('seed')) || 0));
    this.reach = Number(query.get('reach')) > 0 ? Math.min(100, Number(query.get('reach'))) : 1;
    this.view = query.get('view') === 'map' ? 'map' : '3d';
    this.scale = query.get('height') === 'rank' ? 'rank' : 'log';
    const turn = (query.get('turn') ?? '').split(',').map(Number);
    if (turn.length === 3 && turn.every(Number.isFinite)) this.turn = [turn[0]!, Math.min(90, Math.max(2, turn[1]!)), Math.min(6, Math.max(0.6, turn[2]!))];
    void this.list();
    void this.draw();
    permalink(() => {
      const query = new URLSearchParams({ net: this.address, plane: this.plane, other: this.other, part: this.part, seed: String(this.seed), reach: String(this.reach), view: this.view });
      if (this.view === '3d') {
        query.set('turn', this.turn.map((v) => Number(v.toFixed(2))).join(','));
        if (this.scale === 'rank') query.set('height', 'rank');
      }
      return query;
    });
  }
  private async list() {
    try {
      const [catalogue, runs] = await Promise.all([json<Catalogue>('/api/catalogue'), json<RunAbout[]>('/api/runs')]);
      const found: [string, string, string][] = [];
      for (const one of catalogue.networks) {
        if (one.data !== 'digits') continue;
        found.push([one.name, one.name, `${one.sizes}`], [`${one.name}:untrained`, `${one.name}, untrained`, `${one.sizes}`]);
      }
      for (const run of runs.slice(0, 30)) found.push([`run:${run.id}`, `run ${run.id}`, `${run.architecture.sizes}`]);
      this.sizes = Object.fromEntries(found.map(([address, , sizes]) => [address, sizes]));
      this.networks = found.map(([address, text]) => [address, text]);
    } catch (error) {
      this.failures = { ...this.failures, list: error as Failure };
    }
  }
  choose(address: string) {
    [this.address, this.surface, this.line, this.bend] = [address, null, null, null];
    if (!this.others.some(([one]) => one === this.other)) this.other = this.others[0]?.[0] ?? '';
    void this.draw();
  }
  /** Everything anew, the surface first. What was asked before and comes too late is left. */
  async draw() {
    const mine = ++this.asked;
    [this.busy, this.failures, this.picked] = [true, {}, null];
    const tried = async (part: 'surface' | 'line' | 'bend', make: () => Promise<Finding>) => {
      if (mine !== this.asked) return;
      try {
        const found = await make();
        if (mine === this.asked) this[part] = found;
      } catch (error) {
        if (mine === this.asked) [this[part], this.failures] = [null, { ...this.failures, [part]: error as Failure }];
      }
    };
    try {
      const network = { address: this.address };
      const about = await json<NetworkAbout>('/api/network', network);
      if (mine !== this.asked) return;
      this.about = about;
      const data = { ...about.data, part: this.part };
      const way = { directions: 'between', other: this.other };
      const options = this.plane === 'between' ? { ...way, seed: this.seed, reach: this.reach } : { seed: this.seed, reach: this.reach };
      await tried('surface', () => look('loss_landscape', { network, data, options: { ...options, size: 41 } }));
      if (this.other) await tried('line', () => look('loss_landscape', { network, data, options: { ...way, dimensions: 1, size: 61, reach: 1.5 } }));
      else if (mine === this.asked) this.line = null;
      await tried('bend', () => look('curvature', { network, data, options: { count: 5 } }));
    } catch (error) {
      if (mine === this.asked) this.failures = { surface: error as Failure };
    }
    if (mine === this.asked) this.busy = false;
  }
}
