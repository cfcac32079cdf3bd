// A report: findings that were put into the page itself, shown with the same views as in the app.
import './tokens.css';
import { mount } from 'svelte';
import { unframed, type Finding } from './api';
import Report from './pages/Report/Report.svelte';
import { look } from './state/appearance.svelte';

look.start();
const frames: string[] = JSON.parse(document.getElementById('findings')!.textContent!);
const findings = frames.map((text) => unframed(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer) as Finding);
const target = document.getElementById('report')!;
mount(Report, { target, props: { title: target.dataset['title'] ?? 'Report', findings } });
