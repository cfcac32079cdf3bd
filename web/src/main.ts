import '@fontsource-variable/source-sans-3';
import '@fontsource-variable/jetbrains-mono';
import './tokens.css';
import { mount } from 'svelte';
import App from './App.svelte';
import { look } from './state/appearance.svelte';

look.start();
mount(App, { target: document.getElementById('app')! });
