import type { components } from './api.gen';
import { followed } from './state/underway.svelte';

export type NetworkRequest = Required<components['schemas']['NetworkRequest']>;
export type DataRequest = components['schemas']['DataRequest'];
export type InputRequest = components['schemas']['InputRequest'];
export type RunRequest = components['schemas']['RunRequest'];
export type ControlRequest = components['schemas']['ControlRequest'];

/** An array as it came over the wire: flat values and their shape. */
export interface Numbers {
  values: Float64Array | Float32Array | Int32Array | Int8Array | BigInt64Array;
  shape: number[];
}
export interface Check {
  name: string;
  measured: number;
  null: number | null;
  interval: [number, number] | null;
  passed: boolean | null;
  meaning: string;
}
export interface ViewData {
  kind: string;
  title: string;
  [field: string]: unknown;
}
export interface Finding {
  lens: string;
  summary: string;
  numbers: Record<string, Numbers>;
  views: ViewData[];
  checks: Check[];
  params: Record<string, unknown>;
  provenance: Record<string, unknown>;
}
export interface Trouble {
  name: string;
  what: string;
  why: string;
  advice: string;
}
export interface StepLine {
  index: number;
  epoch: number;
  metrics: Record<string, number>;
  trouble: Trouble[];
  detail: Record<string, unknown>;
}
export interface RunReport {
  run: string;
  status: 'playing' | 'paused' | 'ended' | 'failed';
  speed: string;
  message: string;
  latest: StepLine | null;
  version: number;
}
export interface RunAbout {
  id: string;
  data: { name: string; seed: number; test: number; sealed?: number; classes: string[] | null };
  images?: { train: number; test: number; sealed: number };
  architecture: { sizes: number[]; activation: string; bias: boolean };
  loss: 'squared' | 'cross_entropy';
  settings: Record<string, number | string>;
  only: number | null;
}
/** What a run's sealed images showed, once they were opened. */
export interface Seal {
  accuracy: number;
  right: number;
  count: number;
  step: number;
  opened: number;
}
export type RunHistory = RunAbout & RunReport & { seal: Seal | null; now: Record<string, number | string>; steps: StepLine[]; checkpoints: number[] };
export interface LayerAbout {
  name: string;
  kind: string;
  dims: string;
  shape: number[];
  parameters: number;
}
export interface NetworkAbout {
  address: string;
  name: string;
  labels: string[];
  shape: number[];
  loss: string;
  speaks: boolean;
  layers: LayerAbout[];
  untraced: Record<string, string>;
  parameters: number;
  source: { origin: string; sha256: string; licence: string; trained_on: string };
  data: DataRequest;
}
export interface Preset {
  name: string;
  summary: string;
  sizes: number[];
  loss: string;
  data: string;
  training: Record<string, number | string>;
}
export interface Catalogue {
  networks: Preset[];
  data: Record<string, string>;
  lenses: Record<string, string>;
  studies: Record<string, string>;
  optimizers: Record<string, string>;
  losses: Record<string, string>;
}
export interface Images {
  images: Numbers;
  labels: Numbers;
  indices: Numbers;
  classes: string[];
  shape: number[];
  total: number;
  note: string;
}

/** What went wrong and what to do, as the server says it. */
export class Failure extends Error {
  constructor(
    readonly what: string,
    readonly hint: string,
  ) {
    super(`${what} ${hint}`.trim());
  }
}

async function asked(path: string, body?: unknown, method = body === undefined ? 'GET' : 'POST', signal?: AbortSignal, ticket = ''): Promise<Response> {
  let answer: Response;
  try {
    answer = await fetch(path, {
      method,
      signal,
      headers: { ...(body === undefined ? {} : { 'Content-Type': 'application/json' }), ...(ticket ? { 'Neuralmine-Ticket': ticket } : {}) },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Failure('The server does not answer.', 'Is “neuralmine serve” still running? Start it again and reload.');
  }
  if (!answer.ok) {
    const said = await answer.json().catch(() => ({}));
    throw new Failure(said.what ?? `The server refused this (${answer.status}).`, said.hint ?? 'Check the values and try again.');
  }
  return answer;
}

export async function json<T>(path: string, body?: unknown, method?: string): Promise<T> {
  return (await asked(path, body, method)).json();
}

export async function binary<T>(path: string, body: unknown, signal?: AbortSignal, ticket = ''): Promise<T> {
  return unframed(await (await asked(path, body, 'POST', signal, ticket)).arrayBuffer()) as T;
}

const KINDS: Record<string, new (buffer: ArrayBuffer, offset: number, length: number) => Numbers['values']> = {
  float64: Float64Array,
  float32: Float32Array,
  int32: Int32Array,
  int8: Int8Array,
  int64: BigInt64Array,
};

/** Opposite of the server's wire.frame: the arrays are views into the message, nothing is copied. */
export function unframed(buffer: ArrayBuffer): unknown {
  const length = new DataView(buffer).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const filled = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(filled);
    if (value === 'nan') return NaN;
    if (value === 'inf') return Infinity;
    if (value === '-inf') return -Infinity;
    if (value === null || typeof value !== 'object') return value;
    const fields = value as Record<string, unknown>;
    if (!('$array' in fields)) return Object.fromEntries(Object.entries(fields).map(([key, entry]) => [key, filled(entry)]));
    const shape = fields['shape'] as number[];
    const size = shape.reduce((a, b) => a * b, 1);
    const kind = KINDS[fields['dtype'] as string];
    if (!kind) throw new Failure(`Arrays of ${String(fields['dtype'])} cannot be shown.`, '');
    return { values: new kind(buffer, 4 + length + head.offsets[fields['$array'] as number], size), shape };
  };
  return filled(head.document);
}

export const list = (numbers: Numbers | undefined): number[] => (numbers ? Array.from(numbers.values as Float64Array, Number) : []);
export const single = (numbers: Numbers | undefined): number => (numbers ? Number(numbers.values[0]) : NaN);

/** Row `at` of an array of two or more dims, flat. */
export function rowOf(numbers: Numbers, at: number): number[] {
  const width = numbers.shape.slice(1).reduce((a, b) => a * b, 1);
  return Array.from((numbers.values as Float64Array).subarray(at * width, (at + 1) * width), Number);
}

export function look(lens: string, body: Record<string, unknown>, signal?: AbortSignal): Promise<Finding> {
  return followed(lens.replaceAll('_', ' '), (ticket) => binary<Finding>('/api/look', { lens, ...body }, signal, ticket));
}

/** Orders go one after another: each meets what the one before it has changed. */
export function inLine(): <T>(give: () => Promise<T>) => Promise<T> {
  let line: Promise<unknown> = Promise.resolve();
  return (give) => {
    const given = line.then(give);
    line = given.catch(() => undefined);
    return given;
  };
}

/** Runs one request at a time; while one is under way only the newest of the later ones is kept. */
export function latestWins<T>(done: (value: T) => void, failed: (error: Failure) => void): (make: () => Promise<T>) => void {
  let running = false;
  let next: (() => Promise<T>) | null = null;
  const go = async (make: () => Promise<T>) => {
    running = true;
    try {
      const value = await make();
      if (!next) done(value);
    } catch (error) {
      // What was cancelled has not failed.
      const cancelled = error instanceof DOMException && error.name === 'AbortError';
      if (!next && !cancelled) failed(error instanceof Failure ? error : new Failure(String(error), 'Reload the page.'));
    }
    running = false;
    if (next) {
      const following = next;
      next = null;
      void go(following);
    }
  };
  return (make) => {
    if (running) next = make;
    else void go(make);
  };
}
