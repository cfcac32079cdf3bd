// Everything the Workshop shows, in one place: which network, which picture, what was changed by hand, what is open.
// It all lives in the URL too; findings are asked for anew whenever what they depend on changes.
import {
  binary, Failure, inLine, json, latestWins, list, look, rowOf, single,
  type Catalogue, type ControlRequest, type DataRequest, type Finding, type Images, type NetworkAbout, type NetworkRequest,
  type RunHistory, type RunReport, type RunRequest, type StepLine,
} from '../api';
import { look as appearance } from './appearance.svelte';
import { permalink } from './permalink.svelte';
import { reports } from './reports';

export type Entry =
  | { kind: 'neuron'; layer: string; unit: number }
  | { kind: 'pixel'; index: number }
  | { kind: 'weight'; layer: string; unit: number; source: number }
  | { kind: 'layer'; layer: string }
  | { kind: 'accuracy' };
export type Tab = 'train' | 'fault' | 'weights' | 'line' | 'mistakes' | 'damage';
type Edit = NetworkRequest['weights'][number];
interface Snapshot {
  picture: number[];
  origin: number | null;
  edits: Edit[];
  off: Record<string, number[]>;
}

export class Workshop {
  catalogue: Catalogue | null = $state.raw(null);
  address = $state('64-16-10');
  step: number | null = $state(null);
  before = $state(false);
  about: NetworkAbout | null = $state.raw(null);
  images: Images | null = $state.raw(null);
  picture: number[] = $state.raw([]);
  origin: number | null = $state(0); // place in the test part; null when drawn
  edits: Edit[] = $state.raw([]);
  off: Record<string, number[]> = $state.raw({});
  tab: Tab = $state('train');
  stack: Entry[] = $state.raw([]);
  place = $state(-1);
  rate = $state(0.5);
  line = $state(0.5);

  activations: Finding | null = $state.raw(null);
  earlier: Finding | null = $state.raw(null);
  weights: Record<string, Finding> = $state.raw({});
  confusion: Finding | null = $state.raw(null);
  unedited: number | null = $state(null); // test accuracy without the changes made by hand
  failure: Failure | null = $state.raw(null);

  run: RunHistory | null = $state.raw(null);
  report: RunReport | null = $state.raw(null);
  steps: StepLine[] = $state.raw([]);
  did = $state({ drew: false, opened: false, trained: false, changed: false, fault: false });

  private undone: Snapshot[] = [];
  private done: Snapshot[] = [];
  private leave = () => {}; // the run that is followed
  private opening = 0;
  private pausing = false;
  private ready = $state(false);

  get isRun() {
    return this.address.startsWith('run:');
  }
  get runName() {
    return this.isRun ? this.address.slice(4) : '';
  }
  /** The address of what is on screen: a run at a step, or the network before training. */
  get shown(): string {
    if (this.before) return this.isRun ? `${this.address}@0` : `${this.address}:untrained`;
    if (this.isRun) return this.step === null ? `${this.address}${this.report?.latest ? `@${this.report.latest.index}` : ''}` : `${this.address}@${this.step}`;
    return this.address;
  }
  get request(): NetworkRequest {
    return { address: this.shown, weights: this.edits, off: this.off };
  }
  get data(): DataRequest | null {
    return this.about?.data ?? null;
  }
  get rows() {
    return this.about?.shape[0] ?? 8;
  }
  get columns() {
    return this.about?.shape[1] ?? 8;
  }
  /** The blocks of weighted sums in order, with the layer whose value each puts out. */
  get blocks(): { name: string; units: number }[] {
    return (this.about?.layers ?? [])
      .filter((layer) => layer.kind === 'Linear')
      .map((layer) => ({ name: layer.name.replace(/\.sum$/, ''), units: layer.shape[1]! }));
  }
  get label(): number | null {
    return this.origin === null || !this.images || this.origin >= this.images.labels.values.length ? null : Number(this.images.labels.values[this.origin]);
  }
  get entry(): Entry | null {
    return this.stack[this.place] ?? null;
  }
  get edited() {
    return this.edits.length > 0 || Object.values(this.off).some((units) => units.length);
  }
  get accuracy() {
    return this.confusion ? single(this.confusion.numbers['accuracy']) : null;
  }
  get playing() {
    return this.report?.status === 'playing';
  }
  get recorded(): number[] {
    return this.steps.map((step) => step.index);
  }
  get current(): StepLine | null {
    if (!this.steps.length) return null;
    const at = this.step ?? this.steps[this.steps.length - 1]!.index;
    return this.steps.findLast((line) => line.index <= at) ?? null;
  }

  private readonly lookAtPicture = latestWins<Finding>((found) => this.ready && (this.activations = found), (error) => this.fail(error));
  private readonly lookEarlier = latestWins<Finding | null>((found) => this.ready && (this.earlier = found), () => (this.earlier = null));
  private readonly lookAtWeights = latestWins<Record<string, Finding>>((found) => (this.weights = found), (error) => this.fail(error));
  private readonly lookUnedited = latestWins<number>((accuracy) => (this.unedited = accuracy), () => (this.unedited = null));
  private readonly lookAtMistakes = latestWins<Finding | null>((found) => this.ready && (this.confusion = found), (error) => this.fail(error));

  fail(error: unknown) {
    this.failure = error instanceof Failure ? error : new Failure(String(error), 'Reload the page.');
  }

  /** Read the URL, load what it names, and keep both in step from then on. Call inside a component. */
  start() {
    this.readUrl(new URLSearchParams(location.search));
    json<Catalogue>('/api/catalogue').then((found) => (this.catalogue = found), (error) => this.fail(error));
    this.watch();
    void this.open(this.address, true);
    permalink(() => (this.ready ? this.query() : null));
    $effect(() => () => this.leave());
  }

  private watch() {
    $effect(() => {
      if (!this.ready || !this.picture.length) return;
      const body = { network: this.request, input: { pixels: this.picture } };
      this.lookAtPicture(() => look('activations', body));
    });
    $effect(() => {
      if (!this.ready || !this.picture.length) return;
      const address = this.isRun ? `${this.address}@0` : `${this.address}:untrained`;
      const hand = this.blocks.length === 1 && this.rows * this.columns === 64 && (this.address === '64-1' || this.address === '64-2');
      const body = { network: { address }, input: { pixels: this.picture } };
      const wanted = !hand && !this.before;
      this.lookEarlier(() => (wanted ? look('activations', body) : Promise.resolve(null)));
    });
    $effect(() => {
      if (!this.ready) return;
      const network = this.request;
      const names = this.blocks.filter((block) => block.units <= 64).map((block) => block.name);
      this.lookAtWeights(async () => Object.fromEntries(await Promise.all(names.map(async (name) => [name, await look('weights', { network, options: { layer: name } })] as const))));
    });
    $effect(() => {
      if (!this.ready || !this.data) return;
      const body = { network: this.request, data: { ...this.data, part: 'test' }, options: { shuffles: 50 } };
      this.lookAtMistakes(() => look('confusion', body));
    });
    $effect(() => {
      if (!this.ready || !this.data || !this.edited) return;
      const body = { network: { address: this.shown }, data: { ...this.data, part: 'test' }, options: { shuffles: 1 } };
      this.lookUnedited(async () => single((await look('confusion', body)).numbers['accuracy']));
    });
  }

  /** Open a network by its address; the picture stays when it fits. */
  async open(address: string, fromUrl = false) {
    this.failure = null;
    const before = this.address, turn = ++this.opening;
    const late = () => turn !== this.opening; // another one is being opened by now
    if (!fromUrl) [this.edits, this.off, this.stack, this.place, this.step, this.before] = [[], {}, [], -1, null, false];
    try {
      this.leave();
      [this.run, this.report, this.steps, this.activations, this.confusion, this.earlier] = [null, null, [], null, null, null];
      this.ready = false;
      this.address = address;
      if (this.isRun) await this.follow();
      if (late()) return;
      const about = await json<NetworkAbout>('/api/network', { address: this.shown });
      if (late()) return;
      this.about = about;
      await this.loadImages(late);
      if (late()) return;
      if (this.picture.length !== this.rows * this.columns) this.choose(this.origin ?? 0, false);
      this.ready = true;
    } catch (error) {
      if (late()) return;
      this.fail(error);
      const failure = this.failure;
      if (!this.about && address !== '64-16-10') {
        await this.open('64-16-10');
        this.failure = failure; // what was asked for failed, even though something else is shown now
      } else if (before !== address && this.about) this.address = before;
      if (this.about) this.ready = true;
    }
  }

  private async loadImages(late: () => boolean) {
    try {
      const images = await binary<Images>('/api/data?count=500', { ...this.data, part: 'test' });
      if (!late()) this.images = images;
    } catch (error) {
      if (late()) return;
      this.images = null;
      this.origin = null;
      if (this.picture.length !== this.rows * this.columns) this.picture = new Array(this.rows * this.columns).fill(0);
      this.fail(error);
    }
  }

  choose(index: number, keep = true) {
    if (!this.images) return;
    const count = this.images.labels.values.length;
    const at = ((index % count) + count) % count;
    if (keep) this.remember();
    this.origin = at;
    this.picture = rowOf(this.images.images, at);
  }
  draw(cells: [index: number, value: number][], start: boolean) {
    if (start) this.remember();
    const next = this.picture.slice();
    for (const [index, value] of cells) next[index] = Math.round(16 * Math.min(1, Math.max(0, value))) / 16;
    this.picture = next;
    this.origin = null;
    this.did.drew = true;
  }
  clear() {
    this.remember();
    this.picture = this.picture.map(() => 0);
    this.origin = null;
  }

  inspect(entry: Entry) {
    this.stack = [...this.stack.slice(0, this.place + 1), entry];
    this.place = this.stack.length - 1;
    this.did.opened = true;
  }
  close() {
    this.stack = [];
    this.place = -1;
  }

  /** Set one weight by hand; the network itself stays as it is. */
  setWeight(parameter: string, index: number[], value: number, start = true) {
    if (start) this.remember();
    const others = this.edits.filter((edit) => edit.parameter !== parameter || edit.index.join() !== index.join());
    this.edits = [...others, { parameter, index, value }];
    this.did.changed = true;
  }
  toggleUnit(layer: string, unit: number) {
    this.remember();
    const now = this.off[layer] ?? [];
    this.off = { ...this.off, [layer]: now.includes(unit) ? now.filter((u) => u !== unit) : [...now, unit] };
    this.did.changed = true;
  }
  restore() {
    this.remember();
    this.edits = [];
    this.off = {};
  }

  private snapshot(): Snapshot {
    return { picture: this.picture, origin: this.origin, edits: this.edits, off: this.off };
  }
  private remember() {
    this.done.push(this.snapshot());
    if (this.done.length > 200) this.done.shift();
    this.undone = [];
  }
  private back(from: Snapshot[], to: Snapshot[], nothing: string) {
    const past = from.pop();
    if (!past) return appearance.say(nothing);
    to.push(this.snapshot());
    [this.picture, this.origin, this.edits, this.off] = [past.picture, past.origin, past.edits, past.off];
  }
  undo() {
    this.back(this.done, this.undone, 'Nothing to undo.');
  }
  redo() {
    this.back(this.undone, this.done, 'Nothing to redo.');
  }

  /** Load a run's history and listen to it. */
  private async follow() {
    const name = this.runName;
    const found = await json<RunHistory>(`/api/runs/${name}`);
    if (name !== this.runName) return;
    [this.run, this.report, this.steps] = [found, found, found.steps];
    this.leave();
    this.leave = reports<RunReport>(`/api/runs/${name}/events`, (report) => {
      this.report = report;
      const last = this.steps[this.steps.length - 1];
      if (report.latest && (!last || report.latest.index > last.index)) this.steps = [...this.steps, report.latest];
      if (!this.playing) this.pausing = false;
      else if (!this.pausing) this.step = null;
    });
  }

  async begin(asked: RunRequest) {
    try {
      this.failure = null;
      const answer = await json<RunReport & { kept: string[] }>('/api/runs', asked);
      if (asked.start) appearance.say(answer.kept.length ? `New run; kept ${answer.kept.length} sets of weights that fit.` : 'New run; no weights fit the new shape.');
      await this.waitForFirstStep(answer.run);
      this.did.trained = true;
      await this.open(`run:${answer.run}`);
    } catch (error) {
      this.fail(error);
    }
  }
  private async waitForFirstStep(name: string) {
    for (let tries = 0; tries < 200; tries++) {
      const found = await json<RunHistory>(`/api/runs/${name}`);
      if (found.status === 'failed') throw new Failure(found.message, 'Change the settings and start again.');
      if (found.checkpoints.length) return;
      await new Promise((done) => setTimeout(done, 40));
    }
    throw new Failure('The run did not begin.', 'Look at the terminal that serves this page.');
  }
  // Orders go one after another; what each depends on is asked when its turn has come.
  private inLine = inLine();
  private async give(orders: () => Promise<void>) {
    const name = this.runName;
    try {
      this.failure = null;
      await this.inLine(async () => {
        if (name && name === this.runName) await orders();
      });
    } catch (error) {
      this.fail(error);
    }
  }
  private async send(order: ControlRequest) {
    const name = this.runName;
    const report = await json<RunReport>(`/api/runs/${name}/control`, order);
    if (name !== this.runName) return;
    this.report = report;
    if (order.do === 'rewind') {
      await this.follow();
      this.step = null;
    } else if (order.do === 'play' || order.do === 'step') {
      [this.step, this.pausing] = [null, false];
      this.did.trained = true;
    }
  }
  private async onward(what: 'play' | 'step') {
    if (this.step !== null && this.report?.latest && this.step < this.report.latest.index) await this.send({ do: 'rewind', to: this.step, settings: {} });
    await this.send({ do: what, speed: (this.report?.speed as 'fast') ?? 'fast', settings: {} });
  }
  tell(order: ControlRequest) {
    return this.give(() => this.send(order));
  }
  /** Play or step from what is on screen: an earlier step is first rewound to. */
  go(what: 'play' | 'step') {
    return this.give(() => this.onward(what));
  }
  play() {
    return this.give(() => (this.playing ? this.send({ do: 'pause', settings: {} }) : this.onward('play')));
  }
  /** Show a recorded step; what plays is paused, and what it still reports meanwhile does not lead away from there. */
  seek(place: number) {
    if (this.playing && !this.pausing) {
      this.pausing = true;
      void this.tell({ do: 'pause', settings: {} });
    }
    this.step = place === this.recorded.at(-1) ? null : place;
  }

  private readUrl(query: URLSearchParams) {
    this.address = query.get('net') ?? '64-16-10';
    const step = query.get('step');
    this.step = step === null || !/^\d+$/.test(step) ? null : Number(step);
    this.before = query.get('before') === '1';
    this.tab = (['train', 'fault', 'weights', 'line', 'mistakes', 'damage'] as const).find((tab) => tab === query.get('tab')) ?? 'train';
    this.rate = Number(query.get('rate')) || 0.5;
    this.line = query.get('line') === null ? 0.5 : Number(query.get('line'));
    const drawn = query.get('px');
    if (drawn && /^[0-9a-g]+$/.test(drawn)) {
      this.picture = Array.from(drawn, (c) => parseInt(c, 17) / 16);
      this.origin = null;
    } else this.origin = Number(query.get('img') ?? 0) || 0;
    this.edits = (query.get('w') ?? '').split(';').filter(Boolean).flatMap((text) => {
      const [where, value] = text.split('=');
      const [parameter, index] = (where ?? '').split(':');
      return parameter && index && Number.isFinite(Number(value)) ? [{ parameter, index: index.split('.').map(Number), value: Number(value) }] : [];
    });
    this.off = Object.fromEntries((query.get('off') ?? '').split(';').filter(Boolean).map((text) => {
      const [layer, units] = text.split(':');
      return [layer!, (units ?? '').split('.').map(Number).filter(Number.isInteger)];
    }));
    const open = (query.get('open') ?? '').split(':');
    const entry = readEntry(open);
    if (entry) [this.stack, this.place] = [[entry], 0];
  }
  private query(): URLSearchParams {
    const query = new URLSearchParams();
    query.set('net', this.address);
    if (this.step !== null) query.set('step', String(this.step));
    if (this.before) query.set('before', '1');
    query.set('tab', this.tab);
    if (this.origin === null) query.set('px', this.picture.map((v) => Math.round(v * 16).toString(17)).join(''));
    else query.set('img', String(this.origin));
    if (this.edits.length) query.set('w', this.edits.map((e) => `${e.parameter}:${e.index.join('.')}=${e.value}`).join(';'));
    const off = Object.entries(this.off).filter(([, units]) => units.length);
    if (off.length) query.set('off', off.map(([layer, units]) => `${layer}:${units.join('.')}`).join(';'));
    if (this.rate !== 0.5) query.set('rate', String(this.rate));
    if (this.line !== 0.5) query.set('line', String(this.line));
    if (this.entry) query.set('open', Object.values(this.entry).join(':'));
    return query;
  }
  /** The code that shows the same in Python. */
  python(): string {
    const where = this.isRun ? `nm.load(nm.stores.runs.find("${this.runName}")${this.step === null ? '' : `, step=${this.step}`})` : `nm.load("${this.address}"${this.before ? ', trained=False' : ''})`;
    const image = this.origin === null ? JSON.stringify(this.picture) : `data.split()[1].images[${this.origin}]`;
    return `import neuralmine as nm\n\nnet = ${where}\ndata = nm.datasets.load("${this.data?.name ?? 'digits'}")\nfinding = nm.look("activations", net, ${image})\nprint(finding.text())\n`;
  }
}

function readEntry([kind, ...rest]: string[]): Entry | null {
  const numbers = rest.map(Number);
  if (kind === 'pixel' && Number.isInteger(numbers[0])) return { kind, index: numbers[0]! };
  if (kind === 'neuron' && rest[0] && Number.isInteger(numbers[1])) return { kind, layer: rest[0], unit: numbers[1]! };
  if (kind === 'weight' && rest[0] && Number.isInteger(numbers[2])) return { kind, layer: rest[0], unit: numbers[1]!, source: numbers[2]! };
  if (kind === 'layer' && rest[0]) return { kind, layer: rest[0] };
  if (kind === 'accuracy') return { kind };
  return null;
}

export const scores = (finding: Finding | null) => list(finding?.numbers['scores']);
