// How each piece is drawn: roads of grids, joined by what is done to them, and the sub-steps of its slow motion.
// A grid shows one array's two axes; its other axes stand where the place is (which output, which example).
export type Options = Record<string, string | number | boolean>;

export interface Part {
  array: string;
  title: string;
  sign?: string; // what joins it to the part before: × = + →
  rows?: string; // letters of the axes shown; the array's last two when not said
  columns?: string;
  wrap?: number; // a long axis folded into rows of so many, as an image is
  ink?: boolean;
  labels?: boolean; // its rows are named
  columnLabels?: boolean; // its columns are named
  fix?: Record<string, number>;
  when?: (options: Options) => boolean;
}
export interface Road {
  name: string;
  of?: string; // the letter of the axis of which one place is shown: its place is said
  parts: Part[];
}
/** One sub-step: "windows[o i j c * *]" is what is worked out; a star takes all of an axis, "[…]" stands at the place on each; `sweep` repeats it over axes. */
export interface Sub {
  name: string;
  say: string;
  at: string;
  sweep?: string;
  wide?: string; // swept instead where the array has these axes
  backwards?: boolean;
}
export interface Layout {
  axes: Record<string, string>;
  place: Record<string, number>;
  choose?: Record<string, string>; // axes of which one place is shown at a time, and their names
  chosen?: (options: Options) => boolean; // with which options they are chosen so
  seed?: number; // to begin with, where 0 tells little
  forward: Road[];
  backward: Road[];
  steps: Sub[];
  back: Sub[];
  tries: string;
}

const MAP = { o: 'map', c: 'channel', i: 'row', j: 'column', y: 'window row', x: 'window column', Y: 'row', X: 'column', P: 'row', Q: 'column', z: '' };
const padded = (options: Options) => Number(options['padding']) > 0;

const learned = (options: Options) => options['kernel'] === 'trained';
const convolution: Layout = {
  axes: MAP,
  place: { i: 2, j: 2 },
  choose: { o: 'kernel shown' },
  forward: [
    {
      name: 'Forward: window × kernel, summed, at every place',
      of: 'o',
      parts: [
        { array: 'input', title: 'Input', ink: true, when: (options) => !padded(options) },
        { array: 'padded', title: 'Input with its rim', ink: true, when: padded },
        { array: 'windows', title: 'Window', sign: '→', ink: true },
        { array: 'convolution.weight', title: 'Kernel', sign: '×' },
        { array: 'products', title: 'Products', sign: '=' },
        { array: 'output', title: 'Output', sign: 'Σ' },
      ],
    },
    {
      name: 'The four trained kernels, and what each makes of the digit',
      parts: [0, 1, 2, 3].flatMap((o) => [
        { array: 'convolution.weight', title: `Kernel ${o}`, fix: { o }, when: learned },
        { array: 'output', title: `Map ${o}`, sign: '→', fix: { o }, when: learned },
      ]),
    },
  ],
  backward: [
    {
      name: 'Back to the kernel: slope × window, added over all places',
      of: 'o',
      parts: [
        { array: 'd_output', title: 'Slope coming in' },
        { array: 'windows', title: 'Window', sign: '×', ink: true },
        { array: 'd_products', title: 'This place’s part', sign: '=' },
        { array: 'd_convolution.weight', title: 'Slope of the kernel', sign: 'Σ' },
      ],
    },
    {
      name: 'Back to the input: slope × kernel, added where windows overlap',
      of: 'o',
      parts: [
        { array: 'd_output', title: 'Slope coming in' },
        { array: 'convolution.weight', title: 'Kernel', sign: '×' },
        { array: 'd_windows', title: 'Sent back by this window', sign: '=' },
        { array: 'd_input', title: 'Slope of the input', sign: 'Σ' },
      ],
    },
  ],
  steps: [
    { name: 'Place the window', say: 'The window is laid on the input; what it covers is cut out.', at: 'windows[o i j c * *]' },
    { name: 'Multiply', say: 'Each number under the window meets the kernel’s number at the same place.', at: 'products[o i j c * *]' },
    { name: 'Add', say: 'All products are added, and the bias: that is one number of the output.', at: 'output[o i j]' },
    { name: 'Slide', say: 'The window moves on; the kernel stays the same.', at: 'output[o i j]', sweep: 'i j' },
  ],
  back: [
    { name: 'A slope comes in', say: 'From above comes how the loss moves with this output.', at: 'd_output[o i j]' },
    { name: 'Part of the kernel’s slope', say: 'This place tells the kernel: slope × what lay under the window.', at: 'd_products[o i j c * *]' },
    { name: 'All places together', say: 'The kernel is shared, so its slope adds up the parts of all places.', at: 'd_convolution.weight[o c y x]', sweep: 'y x' },
    { name: 'Sent back through the window', say: 'The same slope × kernel goes back to what lay under the window.', at: 'd_windows[o i j c * *]' },
    { name: 'Where windows overlap', say: 'A pixel lay under several windows: what they send back is added.', at: 'd_input[c Y X]', sweep: 'Y X' },
  ],
  tries: 'Choose the level kernel: which strokes of the digit light up now? Then the four that were trained: do they look for edges too? Paint on the input: which outputs follow?',
};

const dense: Layout = {
  axes: { b: 'example', o: 'output', n: 'input', z: '' },
  place: { o: 0 },
  forward: [
    {
      name: 'Forward: every input × its weight, summed, bent',
      parts: [
        { array: 'input', title: 'Input: 64 pixels', rows: '', columns: 'n', wrap: 8, ink: true },
        { array: 'sum.weight', title: 'Weights of this output', sign: '×', rows: '', columns: 'n', wrap: 8 },
        { array: 'products', title: 'Products', sign: '=', rows: '', columns: 'n', wrap: 8 },
        { array: 'sums', title: 'Sums + bias', sign: 'Σ', labels: true },
        { array: 'output', title: 'Outputs', sign: '→', ink: true },
      ],
    },
    {
      name: 'The loss: each example’s part, added up',
      parts: [
        { array: 'ideal', title: 'Ideal', ink: true, labels: true },
        { array: 'errors', title: 'Output − ideal', sign: '→' },
        { array: 'shares', title: 'Softmax of the outputs', sign: '→', ink: true },
        { array: 'example_losses', title: 'Loss of each example', sign: 'Σ', columns: 'b', rows: '' },
        { array: 'contributions', title: 'Its part of the mean', sign: '÷ 3', columns: 'b', rows: '' },
        { array: 'loss', title: 'Loss', sign: 'Σ', columns: 'z', rows: '' },
      ],
    },
  ],
  backward: [
    {
      name: 'Back to the sums: slope × steepness of the bend',
      parts: [
        { array: 'd_output', title: 'Slope of the outputs', labels: true },
        { array: 'slopes', title: 'Steepness', sign: '×' },
        { array: 'd_sums', title: 'Slope of the sums', sign: '=' },
      ],
    },
    {
      name: 'Back to the weights: slope × input, added over the examples',
      parts: [
        { array: 'd_products', title: 'This example’s part', rows: '', columns: 'n', wrap: 8 },
        { array: 'd_sum.weight', title: 'Slope of the weights', sign: 'Σ', rows: '', columns: 'n', wrap: 8 },
        { array: 'd_sum.bias', title: 'Slope of the biases', rows: '', columns: 'o' },
      ],
    },
    {
      name: 'Back to the input: slope × weight, added over the outputs',
      parts: [
        { array: 'd_by_output', title: 'This output’s part', rows: '', columns: 'n', wrap: 8 },
        { array: 'd_input', title: 'Slope of the input', sign: 'Σ', rows: '', columns: 'n', wrap: 8 },
      ],
    },
  ],
  steps: [
    { name: 'Multiply', say: 'Each pixel meets the weight that this output has for it.', at: 'products[b o *]' },
    { name: 'Add', say: 'All 64 products are added, and the bias.', at: 'sums[b o]' },
    { name: 'Bend', say: 'The activation bends the sum: that is the output.', at: 'output[b o]' },
    { name: 'Every output', say: 'The same pixels, other weights: each output adds them up in its own way.', at: 'output[b o]', sweep: 'o' },
    { name: 'Compare', say: 'What each output should have been tells how wrong this example is.', at: 'example_losses[b]' },
    { name: 'Each example’s part', say: 'Each example has its part of the loss.', at: 'contributions[b]', sweep: 'b' },
    { name: 'The loss', say: 'The parts add up to the loss: what training lowers.', at: 'loss[z]' },
  ],
  back: [
    { name: 'The loss pulls', say: 'How the loss moves with this output: towards the ideal.', at: 'd_output[b o]' },
    { name: 'Through the bend', say: 'Where the activation is flat, little of the slope gets through.', at: 'd_sums[b o]' },
    { name: 'To the weights', say: 'Slope × input: a weight that saw no ink gets no blame.', at: 'd_products[b o *]' },
    { name: 'All examples together', say: 'One weight serves all examples: its slope adds up their parts.', at: 'd_sum.weight[o *]' },
    { name: 'To the input', say: 'Slope × weight goes back to the pixels.', at: 'd_by_output[b o *]' },
    { name: 'All outputs together', say: 'A pixel feeds all outputs: what they send back is added.', at: 'd_input[b *]' },
  ],
  tries: 'Change a pixel of the digit: does the loss follow? Take seeded weights: where do the example’s parts of the loss go?',
};

const pooling: Layout = {
  axes: MAP,
  place: { i: 1, j: 1 },
  forward: [
    {
      name: 'Forward: one number of every window',
      parts: [
        { array: 'input', title: 'Input', ink: true },
        { array: 'windows', title: 'Window', sign: '→', ink: true },
        { array: 'shares', title: 'Switch', sign: '·' },
        { array: 'output', title: 'Output', sign: '→', ink: true },
      ],
    },
  ],
  backward: [
    {
      name: 'Back: the slope goes where the number came from',
      parts: [
        { array: 'd_output', title: 'Slope coming in' },
        { array: 'shares', title: 'Switch', sign: '×' },
        { array: 'd_windows', title: 'Sent back', sign: '=' },
        { array: 'd_input', title: 'Slope of the input', sign: 'Σ' },
      ],
    },
  ],
  steps: [
    { name: 'Place the window', say: 'The window is laid on the input.', at: 'windows[c i j * *]' },
    { name: 'Choose', say: 'The switch remembers where the largest stands; for the mean, all have the same share.', at: 'shares[c i j * *]' },
    { name: 'Keep one', say: 'One number is left of the window.', at: 'output[c i j]' },
    { name: 'Slide', say: 'The window moves on.', at: 'output[c i j]', sweep: 'i j' },
  ],
  back: [
    { name: 'A slope comes in', say: 'From above comes how the loss moves with this output.', at: 'd_output[c i j]' },
    { name: 'Through the switch', say: 'Only the largest gets the slope; the others did not count. The mean gives each its share.', at: 'd_windows[c i j * *]' },
    { name: 'Back in place', say: 'Every slope lands where its number stood.', at: 'd_input[c Y X]', sweep: 'Y X' },
  ],
  tries: 'Change max into mean: where does the slope land now? Raise the pixel beside a switch until the switch jumps.',
};

const onMaps = (options: Options) => options['kind'] === 'maps';
const onUnits = (options: Options) => !onMaps(options);
const running = (options: Options) => onMaps(options) || options['kind'] === 'batch';
const training = (options: Options) => running(options) && options['mode'] !== 'eval';
const evaluating = (options: Options) => running(options) && options['mode'] === 'eval';
/** One number for a unit, an example or a group; of maps, one for each map. */
const statistic = (array: string, title: string, sign: string): Part[] => [
  { array, title, sign, when: onUnits },
  { array, title: `${title}, of each map`, sign, rows: '', columns: 'u', when: onMaps },
];
const normalisation: Layout = {
  axes: { b: 'example', u: 'unit', Y: 'row', X: 'column', z: '', v: '', w: '' },
  place: { b: 1, u: 3, Y: 2, X: 3 },
  choose: { b: 'digit shown', u: 'map shown' },
  chosen: onMaps,
  forward: [
    {
      name: 'Forward: take the mean off, divide by the deviation',
      parts: [
        { array: 'input', title: 'Input: six digits, eight units', labels: true, when: onUnits },
        { array: 'input', title: 'Input: this map of this digit', when: onMaps },
        ...statistic('mean', 'Mean', '→'),
        { array: 'centred', title: 'Input − mean', sign: '→' },
        ...statistic('variance', 'Variance', '→'),
        ...statistic('inverse_deviation', '1 ÷ √variance', '→'),
        { array: 'normalised', title: 'Normalised', sign: '→' },
        { array: 'output', title: 'Output: scaled, shifted', sign: '→' },
      ],
    },
    {
      name: 'The running statistics: they follow batch after batch, and serve when training is over',
      parts: [
        { array: 'normalisation.running_mean', title: 'Running mean before', rows: '', columns: 'u', when: training },
        { array: 'running_mean', title: 'After this batch', sign: '→', rows: '', columns: 'u', when: training },
        { array: 'normalisation.running_var', title: 'Running variance before', rows: '', columns: 'u', when: training },
        { array: 'running_var', title: 'After this batch', sign: '→', rows: '', columns: 'u', when: training },
        { array: 'normalisation.running_mean', title: 'Running mean: used here', rows: '', columns: 'u', when: evaluating },
        { array: 'normalisation.running_var', title: 'Running variance: used here', rows: '', columns: 'u', when: evaluating },
      ],
    },
  ],
  backward: [
    {
      name: 'Back: straight, and in training through the variance and the mean too',
      parts: [
        { array: 'd_output', title: 'Slope coming in' },
        { array: 'd_normalised', title: 'Before scale and shift', sign: '→' },
        { array: 'd_centred', title: 'Straight back', sign: '→' },
        ...statistic('d_variance', 'By the variance', '+'),
        ...statistic('d_mean', 'By the mean', '+'),
        { array: 'd_input', title: 'Slope of the input', sign: 'Σ' },
      ],
    },
    {
      name: 'Back to scale and shift',
      parts: [
        { array: 'd_normalisation.weight', title: 'Slope of the scales', rows: '', columns: 'u' },
        { array: 'd_normalisation.bias', title: 'Slope of the shifts', rows: '', columns: 'u' },
      ],
    },
  ],
  steps: [
    { name: 'Mean', say: 'The mean of all numbers that are taken together.', at: 'mean[…]' },
    { name: 'Centre', say: 'It is taken off: what is left lies around 0.', at: 'centred[…]' },
    { name: 'Variance', say: 'The mean of the squares says how widely they spread.', at: 'variance[…]' },
    { name: 'Deviation', say: 'Its root is the deviation; a little is added so that it is never 0.', at: 'inverse_deviation[…]' },
    { name: 'Normalise', say: 'Divided by the deviation: mean 0, variance 1.', at: 'normalised[…]' },
    { name: 'Scale and shift', say: 'Training may undo it: a scale and a shift for each unit.', at: 'output[…]' },
    { name: 'Every number', say: 'The same for every number.', at: 'output[…]', sweep: 'b u', wide: 'Y X' },
    { name: 'The running mean', say: 'A tenth of the way to this batch’s mean: it will serve when training is over.', at: 'running_mean[u]' },
    { name: 'The running variance', say: 'And a tenth of the way to its variance.', at: 'running_var[u]' },
  ],
  back: [
    { name: 'A slope comes in', say: 'From above comes how the loss moves with this output.', at: 'd_output[…]' },
    { name: 'Before the scale', say: 'Times the scale: the slope of the normalised number.', at: 'd_normalised[…]' },
    { name: 'Straight back', say: 'Divided by the deviation, as the number was.', at: 'd_centred[…]' },
    { name: 'By the variance', say: 'The number also moves the variance, and with it all its fellows.', at: 'd_variance[…]' },
    { name: 'By the mean', say: 'And it moves the mean.', at: 'd_mean[…]' },
    { name: 'All three', say: 'The three ways add up. What would move all fellows alike has no slope left.', at: 'd_input[…]' },
    { name: 'Every number', say: 'The same for every number.', at: 'd_input[…]', sweep: 'b u', wide: 'Y X' },
  ],
  tries: 'Change the mode to eval: why does the slope come back by one way only? Take maps: each map shares one mean over all its places. In training take all slopes coming in as 1: the slope of the input is 0. Why? Change one number by 10: whose outputs move?',
};

const residual: Layout = {
  axes: MAP,
  place: { i: 3, j: 3, Y: 3, X: 3 },
  forward: [
    {
      name: 'The long road: two convolutions, a ReLU between them',
      parts: [
        { array: 'input', title: 'Input', ink: true },
        { array: 'first.weight', title: 'First kernel', sign: '∗' },
        { array: 'first.output', title: 'First sums', sign: '=' },
        { array: 'hidden', title: 'After the ReLU', sign: '→' },
        { array: 'second.weight', title: 'Second kernel', sign: '∗' },
        { array: 'second.output', title: 'Second sums', sign: '=' },
      ],
    },
    {
      name: 'The short road, and their sum',
      parts: [
        { array: 'second.output', title: 'Along the long road' },
        { array: 'shortcut', title: 'Along the short road', sign: '+' },
        { array: 'total', title: 'Sum', sign: '=' },
        { array: 'output', title: 'Output, after the ReLU', sign: '→' },
      ],
    },
  ],
  backward: [
    {
      name: 'The slope at the sum goes whole into both roads',
      parts: [
        { array: 'd_output', title: 'Slope coming in' },
        { array: 'open', title: 'ReLU open', sign: '×', ink: true },
        { array: 'd_total', title: 'Slope of the sum', sign: '=' },
      ],
    },
    {
      name: 'Both roads back, and what reaches the input',
      parts: [
        { array: 'd_hidden', title: 'Back through the second' },
        { array: 'd_input_by_block', title: 'By the long road', sign: '→' },
        { array: 'd_input_by_shortcut', title: 'By the short road', sign: '+' },
        { array: 'd_input', title: 'Slope of the input', sign: '=' },
      ],
    },
  ],
  steps: [
    { name: 'First convolution', say: 'Along the long road: window × first kernel.', at: 'first.output[o i j]' },
    { name: 'ReLU', say: 'What is below 0 stops here.', at: 'hidden[o i j]' },
    { name: 'Second convolution', say: 'Window × second kernel.', at: 'second.output[o i j]' },
    { name: 'The short road', say: 'Meanwhile the input itself has come along, unchanged.', at: 'shortcut[o i j]' },
    { name: 'Add', say: 'The two roads meet: long + short.', at: 'total[o i j]' },
    { name: 'ReLU', say: 'One more ReLU, and this is the output.', at: 'output[o i j]' },
    { name: 'Every place', say: 'The same at every place.', at: 'output[o i j]', sweep: 'i j' },
  ],
  back: [
    { name: 'A slope comes in', say: 'From above comes how the loss moves with this output.', at: 'd_output[o i j]' },
    { name: 'Through the ReLU', say: 'Where the sum was below 0, nothing passes.', at: 'd_total[o i j]' },
    { name: 'The long road back', say: 'Twice through kernels and a ReLU: much is lost or mixed.', at: 'd_input_by_block[c Y X]' },
    { name: 'The short road back', say: 'A sum hands its slope on whole: it arrives as it was.', at: 'd_input_by_shortcut[c Y X]' },
    { name: 'Both', say: 'At the input both roads’ slopes are added.', at: 'd_input[c Y X]' },
    { name: 'Every place', say: 'The same at every place.', at: 'd_input[c Y X]', sweep: 'Y X' },
  ],
  tries: 'Set the weights × 0: the long road is shut. Does the input still get a slope?',
};

const branch = (name: string, title: string, parts: Part[]): Road => ({ name: title, parts: [...parts, { array: `${name}.rectified`, title: 'After the ReLU', sign: '→' }] });
const inception: Layout = {
  axes: MAP,
  seed: 24, // every branch lets something through
  place: { i: 3, j: 3, Y: 3, X: 3 },
  forward: [
    branch('one', 'Branch 1: a window of 1 × 1', [
      { array: 'input', title: 'Input', ink: true },
      { array: 'one.weight', title: 'Kernel', sign: '∗' },
      { array: 'one.output', title: 'Sums', sign: '=' },
    ]),
    branch('three', 'Branch 2: 1 × 1, then 3 × 3', [
      { array: 'three_reduce.rectified', title: 'After its 1 × 1' },
      { array: 'three.weight', title: 'Kernel', sign: '∗' },
      { array: 'three.output', title: 'Sums', sign: '=' },
    ]),
    branch('five', 'Branch 3: 1 × 1, then 5 × 5', [
      { array: 'five_reduce.rectified', title: 'After its 1 × 1' },
      { array: 'five.weight', title: 'Kernel', sign: '∗' },
      { array: 'five.output', title: 'Sums', sign: '=' },
    ]),
    branch('pool_project', 'Branch 4: the largest of 3 × 3, then 1 × 1', [
      { array: 'pool.output', title: 'After the pooling', ink: true },
      { array: 'pool_project.weight', title: 'Kernel', sign: '∗' },
      { array: 'pool_project.output', title: 'Sums', sign: '=' },
    ]),
    {
      name: 'Stacked: four maps, one for each branch',
      parts: [
        { array: 'output', title: 'Map 0: from 1 × 1', fix: { o: 0 } },
        { array: 'output', title: 'Map 1: from 3 × 3', fix: { o: 1 } },
        { array: 'output', title: 'Map 2: from 5 × 5', fix: { o: 2 } },
        { array: 'output', title: 'Map 3: from the pooling', fix: { o: 3 } },
      ],
    },
  ],
  backward: [
    {
      name: 'Four slopes coming in, one for each map',
      parts: [0, 1, 2, 3].map((o) => ({ array: 'd_output', title: `Slope of map ${o}`, fix: { o } })),
    },
    {
      name: 'Back along the branches; at the input they are added',
      parts: [
        { array: 'd_input_by_one', title: 'By the 1 × 1' },
        { array: 'd_input_by_three', title: 'By the 3 × 3', sign: '+' },
        { array: 'd_input_by_five', title: 'By the 5 × 5', sign: '+' },
        { array: 'd_input_by_pool', title: 'By the pooling', sign: '+' },
        { array: 'd_input', title: 'Slope of the input', sign: '=' },
      ],
    },
  ],
  steps: [
    { name: '1 × 1', say: 'The smallest window: each pixel by itself.', at: 'one.output[0 i j]' },
    { name: '3 × 3', say: 'After a 1 × 1 that narrows the maps, a window of 3 × 3.', at: 'three.output[0 i j]' },
    { name: '5 × 5', say: 'Another narrows, and 5 × 5 sees a whole stroke.', at: 'five.output[0 i j]' },
    { name: 'Pooling', say: 'The largest of each 3 × 3, then a 1 × 1.', at: 'pool_project.output[0 i j]' },
    { name: 'Stack', say: 'The four maps are laid one on the other: that is the output.', at: 'output[* i j]' },
  ],
  back: [
    { name: 'Slopes come in', say: 'Each map brings the slope of its own branch.', at: 'd_output[* i j]' },
    { name: 'By the 1 × 1', say: 'The narrow branch answers to one pixel.', at: 'd_input_by_one[c Y X]' },
    { name: 'By the 3 × 3', say: 'Nine windows lay over this pixel.', at: 'd_input_by_three[c Y X]' },
    { name: 'By the 5 × 5', say: 'Twenty-five did here.', at: 'd_input_by_five[c Y X]' },
    { name: 'By the pooling', say: 'Only where this pixel was the largest.', at: 'd_input_by_pool[c Y X]' },
    { name: 'All four', say: 'At the input the branches’ slopes are added.', at: 'd_input[c Y X]' },
    { name: 'Every place', say: 'The same at every place.', at: 'd_input[c Y X]', sweep: 'Y X' },
  ],
  tries: 'Another seed: which branch sends back most? Click a number of the 5 × 5 and count its terms.',
};

const gated = (options: Options) => options['kind'] === 'gru';
const recurrent: Layout = {
  axes: { t: 'moment', s: 'after', n: 'input', h: 'state', g: 'last state', k: 'unit' },
  place: { t: 3, s: 4, h: 0, k: 0, n: 3 },
  forward: [
    {
      name: 'What comes in now',
      parts: [
        { array: 'input', title: 'Input: row after row', ink: true },
        { array: 'cell.weight_ih', title: 'Weights of the input', sign: '×' },
        { array: 'input_sums', title: 'Sums of the input', sign: '=' },
      ],
    },
    {
      name: 'What is remembered',
      parts: [
        { array: 'states', title: 'States: 0 at the start' },
        { array: 'cell.weight_hh', title: 'Weights of the memory', sign: '×' },
        { array: 'memory_sums', title: 'Sums of the memory', sign: '=' },
      ],
    },
    {
      name: 'The gates and the new state',
      parts: [
        { array: 'reset', title: 'Reset gate', ink: true, when: gated },
        { array: 'update', title: 'Update gate', sign: '·', ink: true, when: gated },
        { array: 'candidate', title: 'Candidate', sign: '·', when: gated },
        { array: 'output', title: 'State after each moment', sign: '→' },
      ],
    },
  ],
  backward: [
    {
      name: 'Back through time: from above, and from later',
      parts: [
        { array: 'd_output', title: 'Slope coming in' },
        { array: 'd_states', title: 'Slope of the states', sign: '→' },
        { array: 'd_input_sums', title: 'Slope of the input’s sums', sign: '→' },
        { array: 'd_memory_sums', title: 'Slope of the memory’s sums', sign: '·' },
      ],
    },
    {
      name: 'Back to the weights, of all moments, and to the input',
      parts: [
        { array: 'd_cell.weight_ih', title: 'Slope of the input’s weights' },
        { array: 'd_cell.weight_hh', title: 'Slope of the memory’s weights', sign: '·' },
        { array: 'd_input', title: 'Slope of the input', sign: '·' },
      ],
    },
  ],
  steps: [
    { name: 'Read', say: 'This moment’s row × weights.', at: 'input_sums[t k]' },
    { name: 'Remember', say: 'The last state × weights of its own.', at: 'memory_sums[t k]' },
    { name: 'The new state', say: 'Both together, bent: the state after this moment.', at: 'states[s h]' },
    { name: 'Moment after moment', say: 'The new state is the memory of the next moment.', at: 'states[s *]', sweep: 's' },
  ],
  back: [
    { name: 'A slope comes in', say: 'Every moment’s state may be asked for: each brings a slope.', at: 'd_output[t h]' },
    { name: 'Back through time', say: 'The last moment first: a state answers for itself and for all that came of it.', at: 'd_states[s *]', sweep: 's', backwards: true },
    { name: 'To the sums', say: 'Through the bend.', at: 'd_input_sums[t k]' },
    { name: 'To the weights', say: 'One weight serves all moments: their parts are added.', at: 'd_cell.weight_hh[k *]' },
    { name: 'To the input', say: 'And back to the pixels.', at: 'd_input[t *]' },
  ],
  tries: 'Set all slopes coming in but the last to 0: how much of it reaches the first row? Compare the two cells.',
};

const several = (at: number) => (options: Options) => ({ one: 1, two: 2, four: 4 })[String(options['heads'])]! > Math.max(1, at);
const attention: Layout = {
  axes: { h: 'head', t: 'token', q: 'query of', k: 'key of', n: 'number', d: 'number', e: 'joined number' },
  place: { h: 0, t: 2, q: 2, k: 1, d: 0, n: 0, e: 0 },
  choose: { h: 'head shown' },
  forward: [
    {
      name: 'Every token makes a query, a key and a value',
      of: 'h',
      parts: [
        { array: 'input', title: 'Tokens', labels: true, when: (options) => options['tokens'] === 'words' },
        { array: 'input', title: 'Tokens: the rows', labels: true, ink: true, when: (options) => options['tokens'] !== 'words' },
        { array: 'query', title: 'Queries', sign: '→' },
        { array: 'key', title: 'Keys', sign: '·' },
        { array: 'value', title: 'Values', sign: '·' },
      ],
    },
    {
      name: 'Query × key, softmax over the keys',
      of: 'h',
      parts: [
        { array: 'products', title: 'This query × this key', rows: '', columns: 'd' },
        { array: 'scores', title: 'Scores: sums ÷ √d', sign: 'Σ', labels: true, columnLabels: true },
        { array: 'powers', title: 'e to the score − largest', sign: '→', columnLabels: true },
        { array: 'attention', title: 'Attention: rows add up to 1', sign: '÷ total', ink: true, columnLabels: true },
      ],
    },
    {
      name: 'Values, weighted and added',
      of: 'h',
      parts: [
        { array: 'mixed', title: 'This query: attention × values', rows: 'k', columns: 'd', labels: true },
        { array: 'head', title: 'What the head says', sign: 'Σ', labels: true },
      ],
    },
    {
      name: 'The heads side by side: each heeds in its own way',
      parts: [0, 1, 2, 3].map((h) => ({ array: 'attention', title: `Attention of head ${h}`, fix: { h }, ink: true, labels: !h, columnLabels: true, when: several(h) })),
    },
    {
      name: 'Joined, and projected back to the width of a token',
      parts: [
        { array: 'joined', title: 'All heads, joined', labels: true },
        { array: 'projection.weight', title: 'Projection', sign: '×' },
        { array: 'output', title: 'Output', sign: '=' },
      ],
    },
  ],
  backward: [
    {
      name: 'Back through the projection, to all heads',
      parts: [
        { array: 'd_output', title: 'Slope coming in', labels: true },
        { array: 'd_joined', title: 'Slope of what was joined', sign: '→' },
        { array: 'd_projection.weight', title: 'Slope of the projection', sign: '·' },
      ],
    },
    {
      name: 'Back through the mix and the softmax',
      of: 'h',
      parts: [
        { array: 'd_head', title: 'Slope of what the head said' },
        { array: 'd_attention', title: 'Slope of the attention', sign: '→', labels: true, columnLabels: true },
        { array: 'd_scores', title: 'Slope of the scores', sign: '→', columnLabels: true },
      ],
    },
    {
      name: 'Back to query, key and value',
      of: 'h',
      parts: [
        { array: 'd_query', title: 'Slope of the queries', labels: true },
        { array: 'd_key', title: 'Slope of the keys', sign: '·' },
        { array: 'd_value', title: 'Slope of the values', sign: '·' },
      ],
    },
    { name: 'Back to the tokens: by all heads, added', parts: [{ array: 'd_input', title: 'Slope of the tokens', labels: true }] },
  ],
  steps: [
    { name: 'Ask', say: 'The token’s row × weights: what it asks for.', at: 'query[h q *]' },
    { name: 'Answer', say: 'Every token’s key: what it has to offer.', at: 'key[h * *]' },
    { name: 'Compare', say: 'This query × this key, number by number.', at: 'products[h q k *]' },
    { name: 'Score', say: 'Their sum ÷ √d: how well the two agree.', at: 'scores[h q k]' },
    { name: 'All keys', say: 'The same query against every key.', at: 'scores[h q k]', sweep: 'k' },
    { name: 'Powers', say: 'e to the score: all positive, large ones far ahead.', at: 'powers[h q *]' },
    { name: 'Shares', say: 'Divided by their total, the row adds up to 1: that is attention.', at: 'attention[h q k]' },
    { name: 'Mix', say: 'Every value counts by its share.', at: 'mixed[h q * *]' },
    { name: 'Add', say: 'Added up: what this head says to this token.', at: 'head[h q d]' },
    { name: 'Every head', say: 'Each head has queries, keys and values of its own: it heeds others.', at: 'attention[h q *]', sweep: 'h' },
    { name: 'Join', say: 'What the heads say is laid side by side.', at: 'joined[q *]' },
    { name: 'Project', say: 'Joined numbers × projection: every output may use every head.', at: 'output[q n]' },
    { name: 'Every token', say: 'Every token asks in its turn.', at: 'output[q *]', sweep: 'q' },
  ],
  back: [
    { name: 'A slope comes in', say: 'From above comes how the loss moves with this output.', at: 'd_output[q n]' },
    { name: 'To the projection', say: 'Slope × what was joined, added over all tokens.', at: 'd_projection.weight[n e]' },
    { name: 'To the heads', say: 'Slope × projection: each head gets its own part.', at: 'd_head[h q *]' },
    { name: 'To the values', say: 'A value hears from all who heeded it.', at: 'd_value[h k *]' },
    { name: 'To the shares', say: 'Would more of this key have helped? Slope × value.', at: 'd_attention[h q k]' },
    { name: 'Through the softmax', say: 'One share can only rise as the others fall.', at: 'd_scores[h q k]' },
    { name: 'To the queries', say: 'The query moves towards keys that should count more.', at: 'd_query[h q *]' },
    { name: 'To the keys', say: 'And the keys towards the queries.', at: 'd_key[h k *]' },
    { name: 'To the tokens', say: 'By all three ways, of every head, back to the token’s row.', at: 'd_input[t n]' },
  ],
  tries: 'Set the mask to causal: which scores become −∞? Take another head: does it heed the same tokens? Raise the weights: attention becomes sharp, and its slope dies.',
};

export const LAYOUTS: Record<string, Layout> = { dense, convolution, pooling, normalisation, residual, inception, recurrent, attention };

/** An array's name in words, for what no grid of the page shows. */
export const spoken = (array: string): string => (array.startsWith('d_') ? `slope of ${array.slice(2)}` : array).replaceAll('_', ' ').replaceAll('.', ', ');
