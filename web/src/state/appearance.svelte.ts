// Theme and signed colours: kept on this machine, applied to the document; and the one line that says what was done.
type Theme = 'auto' | 'light' | 'dark';
type Signed = 'green-red' | 'blue-orange';

function stored<T extends string>(key: string, allowed: readonly T[], otherwise: T): T {
  const found = typeof localStorage === 'undefined' ? null : localStorage.getItem(key);
  return allowed.includes(found as T) ? (found as T) : otherwise;
}

class Appearance {
  choice: Theme = $state(stored('theme', ['auto', 'light', 'dark'], 'auto'));
  signed: Signed = $state(stored('signed', ['green-red', 'blue-orange'], 'green-red'));
  systemDark = $state(false);
  message = $state('');
  theme = $derived(this.choice === 'auto' ? (this.systemDark ? 'dark' : 'light') : this.choice);

  start() {
    const system = matchMedia('(prefers-color-scheme: dark)');
    this.systemDark = system.matches;
    system.addEventListener('change', () => this.choose(this.choice, system.matches));
    this.choose(this.choice);
    this.sign(this.signed);
  }
  // The document is changed before the state, so that what is drawn again reads the new colours.
  choose(choice: Theme, systemDark = this.systemDark) {
    document.documentElement.dataset['theme'] = choice === 'auto' ? (systemDark ? 'dark' : 'light') : choice;
    localStorage.setItem('theme', choice);
    this.systemDark = systemDark;
    this.choice = choice;
  }
  sign(signed: Signed) {
    document.documentElement.dataset['signed'] = signed;
    localStorage.setItem('signed', signed);
    this.signed = signed;
  }
  say(message: string) {
    this.message = message;
    setTimeout(() => {
      if (this.message === message) this.message = '';
    }, 4000);
  }
}

export const look = new Appearance();
