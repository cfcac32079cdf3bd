// The parts of the Learning page, each at an address of its own.
export const SECTIONS: { path: string; name: string; about: string }[] = [
  { path: '/learning', name: 'Race', about: 'optimizers from one start, and the surface they cross' },
  { path: '/learning/landscape', name: 'Landscape', about: 'the loss around one network, the line to another, and how it bends' },
  { path: '/learning/toys', name: 'Toy problems', about: 'a small net on two numbers, each neuron with its own decision map' },
  { path: '/learning/recordings', name: 'Recordings', about: 'any recorded training, scrubbed back and forth' },
  { path: '/learning/layers', name: 'Layers', about: 'the pieces that networks are made of, each number of them open' },
  { path: '/learning/methods', name: 'Methods', about: 'is it as sure as it is right, would more data help, which ingredient of training does' },
];
