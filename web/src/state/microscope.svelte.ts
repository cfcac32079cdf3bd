// The Microscope: a photo, a network that looks at it, the stage on screen, and what is open. All of it is in the URL.
import { Failure, json, latestWins, look, type Finding, type LayerAbout, type NetworkAbout } from '../api';
import { uploaded } from './photos';
import { permalink } from './permalink.svelte';

export type Tab = 'layers' | 'where' | 'change' | 'beside' | 'filters';
const TABS: Tab[] = ['layers', 'where', 'change', 'beside', 'filters'];
export interface Place {
  layer: string;
  unit: number;
  row: number;
  column: number;
}
export interface Stage {
  name: string;
  out: LayerAbout;
  members: LayerAbout[];
}
export interface PhotoInput {
  photo: string;
  blur: number;
  darkness: number;
  noise: number;
  wiped: [number, number, number][];
}
export const NETWORKS: [string, string][] = [
  ['squeezenet', 'SqueezeNet 1.1'],
  ['lite0', 'EfficientNet-Lite0'],
];

/** Layers with maps, gathered into the stages of the network: everything under one number belongs together. */
export function stagesOf(layers: LayerAbout[]): Stage[] {
  const maps = layers.filter((layer) => layer.dims === 'b c h w' && layer.shape[2]! * layer.shape[3]! > 1);
  const key = (name: string, numbers: number) => {
    const parts = name.split('.');
    let seen = 0;
    const cut = parts.findIndex((part) => /^\d+$/.test(part) && ++seen === numbers);
    return cut < 0 ? parts.slice(0, Math.max(1, parts.findIndex((part) => /^\d+$/.test(part)) < 0 ? 1 : parts.length)).join('.') : parts.slice(0, cut + 1).join('.');
  };
  const grouped = (numbers: number) => {
    const stages = new Map<string, LayerAbout[]>();
    for (const layer of maps) {
      if (layer.kind === 'Sequential' && maps.some((other) => other.name.startsWith(`${layer.name}.`) && key(other.name, numbers) !== key(layer.name, numbers))) continue;
      const name = key(layer.name, numbers);
      stages.set(name, [...(stages.get(name) ?? []), layer]);
    }
    return stages;
  };
  let stages = grouped(1);
  if (stages.size < 5) stages = grouped(2);
  return Array.from(stages, ([name, members]) => ({ name, members, out: members.find((layer) => layer.name === name) ?? members.at(-1)! }));
}

export class Microscope {
  address = $state('squeezenet');
  untrained = $state(false);
  photo = $state('chelsea');
  blur = $state(0);
  darkness = $state(0);
  noise = $state(0);
  wiped: [number, number, number][] = $state.raw([]);
  wiping = $state(false); // the pointer wipes parts out
  stage = $state(0);
  tab: Tab = $state('layers');
  target = $state('');
  pick = $state.raw<Place | null>(null);
  beside = $state('lite0'); // a network's address, or photo:NAME, or "untrained"

  photos = $state.raw<Record<string, string>>({});
  about = $state.raw<NetworkAbout | null>(null);
  said = $state.raw<Finding | null>(null);
  maps = $state.raw<Finding | null>(null);
  failure = $state.raw<Failure | null>(null);
  took = $state(0);
  playing = $state(false);
  private opened = $state(false);
  private timer: ReturnType<typeof setInterval> | undefined;

  get shown() {
    return this.untrained ? `${this.address}:untrained` : this.address;
  }
  get network() {
    return { address: this.shown };
  }
  get input(): PhotoInput {
    return { photo: this.photo, blur: this.blur, darkness: this.darkness, noise: this.noise, wiped: this.wiped };
  }
  get changed() {
    return this.blur > 0 || this.darkness > 0 || this.noise > 0 || this.wiped.length > 0;
  }
  stages: Stage[] = $derived(this.about ? stagesOf(this.about.layers) : []);
  get size() {
    return this.about?.shape.at(-1) ?? 224;
  }

  private readonly seeSaid = latestWins<[Finding, number]>(([found, began]) => {
    [this.said, this.failure] = [found, null];
    this.took = performance.now() - began;
  }, (error) => (this.failure = error));
  private readonly seeMaps = latestWins<Finding>((found) => (this.maps = found), (error) => (this.failure = error));

  start() {
    const query = new URLSearchParams(location.search);
    const number = (name: string) => Math.min(1, Math.max(0, Number(query.get(name)) || 0));
    this.address = query.get('net') ?? 'squeezenet';
    this.untrained = query.get('untrained') === '1';
    this.photo = query.get('photo') ?? 'chelsea';
    [this.blur, this.darkness, this.noise] = [number('blur'), number('darkness'), number('noise')];
    this.wiped = (query.get('wiped') ?? '').split(';').map((one) => one.split(',').map(Number)).filter((one) => one.length === 3 && one.every(Number.isFinite)) as [number, number, number][];
    this.stage = Math.max(0, Number(query.get('stage')) || 0);
    this.tab = TABS.find((tab) => tab === query.get('tab')) ?? 'layers';
    this.target = query.get('target') ?? '';
    this.beside = query.get('beside') ?? 'lite0';
    const [layer, ...rest] = (query.get('open') ?? '').split(':');
    const places = rest.map(Number);
    if (layer && places.length === 3 && places.every(Number.isInteger)) this.pick = { layer, unit: places[0]!, row: places[1]!, column: places[2]! };
    json<Record<string, string>>('/api/photos').then((found) => (this.photos = found), (error) => (this.failure = error));
    $effect(() => {
      const address = this.shown;
      this.opened = false;
      json<NetworkAbout>('/api/network', { address }).then(
        (found) => {
          if (address !== this.shown) return;
          [this.about, this.maps, this.said, this.failure] = [found, null, null, null];
          if (this.pick && !found.layers.some((one) => one.name === this.pick!.layer)) this.pick = null;
          this.stage = Math.min(this.stage, this.stages.length - 1);
          this.opened = true;
        },
        (error) => address === this.shown && (this.failure = error),
      );
    });
    $effect(() => {
      if (!this.opened) return;
      const body = { network: this.network, input: this.input };
      const began = performance.now();
      this.seeSaid(async () => [await look('prediction', { ...body, options: { count: 5 } }), began]);
    });
    $effect(() => {
      if (!this.opened || !this.stages.length) return;
      const body = { network: this.network, input: this.input, options: { layers: this.stages.map((s) => s.out.name).join(','), count: 12 } };
      this.seeMaps(() => look('feature_maps', body));
    });
    permalink(() => this.query());
    $effect(() => () => clearInterval(this.timer));
  }
  private query(): URLSearchParams {
    const query = new URLSearchParams({ net: this.address, photo: this.photo, stage: String(this.stage), tab: this.tab });
    if (this.untrained) query.set('untrained', '1');
    for (const name of ['blur', 'darkness', 'noise'] as const) if (this[name]) query.set(name, String(this[name]));
    if (this.wiped.length) query.set('wiped', this.wiped.map((one) => one.map((v) => Math.round(v)).join(',')).join(';'));
    if (this.target) query.set('target', this.target);
    if (this.tab === 'beside') query.set('beside', this.beside);
    if (this.pick) query.set('open', [this.pick.layer, this.pick.unit, this.pick.row, this.pick.column].join(':'));
    return query;
  }
  go(stage: number) {
    this.stage = Math.min(this.stages.length - 1, Math.max(0, stage));
  }
  play() {
    if (this.playing) return this.pause();
    if (this.stage >= this.stages.length - 1) this.stage = 0;
    this.playing = true;
    this.timer = setInterval(() => {
      if (this.stage >= this.stages.length - 1) this.pause();
      else this.stage += 1;
    }, 900);
  }
  pause() {
    this.playing = false;
    clearInterval(this.timer);
  }
  /** Take the last wipe back. */
  unwipe() {
    this.wiped = this.wiped.slice(0, -1);
  }
  restore() {
    [this.blur, this.darkness, this.noise, this.wiped] = [0, 0, 0, []];
  }
  /** The k-th of the maps' layers: its maps, units, peaks, and shape. */
  layerMaps(k: number, finding = this.maps) {
    const about = (finding?.provenance['layers'] as { name: string; kind: string; shape: number[]; flat: number }[] | undefined)?.[k];
    if (!finding || !about) return null;
    const maps = finding.numbers[`maps ${k}`]!;
    const [, rows, columns] = about.shape as [number, number, number];
    return {
      ...about, rows, columns,
      units: Array.from(finding.numbers[`units ${k}`]!.values as BigInt64Array, Number),
      peaks: finding.numbers[`peaks ${k}`]!.values as Float32Array,
      map: (i: number) => (maps.values as Float32Array).subarray(i * rows * columns, (i + 1) * rows * columns),
    };
  }
  async upload(file: Blob) {
    try {
      const id = await uploaded(file);
      this.restore();
      [this.photo, this.failure] = [id, null];
    } catch (error) {
      this.failure = error instanceof Failure ? error : new Failure(String(error), 'Try again.');
    }
  }
  report() {
    const body = (lens: string, options: Record<string, unknown> = {}) => ({ lens, network: this.network, input: this.input, options });
    const target = this.target ? { target: this.target } : {};
    return {
      title: `${this.shown} looks at ${this.photo}`,
      looks: [
        body('prediction'), body('feature_maps', { layers: this.stages.map((s) => s.out.name).join(',') }),
        ...['saliency', 'integrated_gradients', 'guided_backprop', 'grad_cam', 'occlusion'].map((lens) => body(lens, target)),
        ...(this.pick ? [body('deconvnet', { ...this.pick }), body('convolution', { ...this.pick })] : []),
      ],
    };
  }
  python(): string {
    const photo = this.photo in this.photos ? `nm.datasets.photo(${JSON.stringify(this.photo)})` : '"your-photo.jpg"';
    const lines = ['import neuralmine as nm', `net = nm.load(${JSON.stringify(this.address)}${this.untrained ? ', trained=False' : ''})`, `photo = ${photo}`];
    const target = this.target ? `, target=${JSON.stringify(this.target)}` : '';
    if (this.pick) lines.push(`finding = nm.look("convolution", net, photo, layer=${JSON.stringify(this.pick.layer)}, unit=${this.pick.unit}, row=${this.pick.row}, column=${this.pick.column})`);
    else if (this.tab === 'where') lines.push(`finding = nm.look("grad_cam", net, photo${target})`);
    else lines.push(`finding = nm.look("feature_maps", net, photo, layers=${JSON.stringify(this.stages[this.stage]?.out.name ?? '')}, count=12)`);
    if (this.changed) lines.push('# The page also blurs, darkens, roughens or wipes the photo: see nm.look("corrupt", …) for the same in Python.');
    lines.push('print(finding.text())');
    return lines.join('\n');
  }
}
