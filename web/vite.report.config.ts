// The script of a report: one plain file, put whole into each HTML file.
import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vite';

export default defineConfig({
  plugins: [svelte()],
  build: {
    outDir: '../src/neuralmine/web',
    emptyOutDir: false,
    cssCodeSplit: false,
    lib: { entry: 'src/report.ts', formats: ['iife'], name: 'neuralmineReport', fileName: () => 'report.js', cssFileName: 'report' },
  },
});
