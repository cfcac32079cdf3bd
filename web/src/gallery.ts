// For those who build Neuralmine: every part and view kind on one page. Not part of what is shipped;
// `npx vite` serves it at /gallery.html.
import '@fontsource-variable/source-sans-3';
import '@fontsource-variable/jetbrains-mono';
import './tokens.css';
import { mount } from 'svelte';
import Gallery from './pages/Gallery/Gallery.svelte';
import { look } from './state/appearance.svelte';

look.start();
mount(Gallery, { target: document.getElementById('app')! });
