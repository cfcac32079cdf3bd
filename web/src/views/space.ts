// A surface, lines and dots in 3D on a WebGL2 canvas: what is drawn, not what it means. x and y run from −1 to 1 over the
// plane, z upwards from 0 to 1.
export type Matrix = Float32Array; // 4 × 4, column by column
export type Colour = [red: number, green: number, blue: number]; // 0 to 1

const TALL = 0.95; // of half the plane's width
const FAR = 4.4;

/** From the plane to the screen: turned about the vertical, tilted, then seen in perspective. Angles in degrees. */
export function seenFrom(yaw: number, tilt: number, zoom: number, aspect: number): Matrix {
  const [a, b] = [(yaw * Math.PI) / 180, (tilt * Math.PI) / 180];
  const [ca, sa, cb, sb] = [Math.cos(a), Math.sin(a), Math.cos(b), Math.sin(b)];
  // Rows of the turned world: right, up, towards the eye; z is lowered: it turns about the middle of the plane, a third up.
  const right = [ca, -sa, 0], up = [sa * sb, ca * sb, cb], near = [-sa * cb, -ca * cb, sb];
  const lens = 2.8 * zoom, [front, back] = [FAR - 2.2, FAR + 2.2];
  const depth = [(front + back) / (back - front), (-2 * front * back) / (back - front)] as const;
  const m = new Float32Array(16);
  for (let k = 0; k < 3; k++) {
    const scale = k === 2 ? TALL : 1;
    m[4 * k] = (lens / aspect) * right[k]! * scale;
    m[4 * k + 1] = lens * up[k]! * scale;
    m[4 * k + 2] = -depth[0] * near[k]! * scale;
    m[4 * k + 3] = -near[k]! * scale;
  }
  const shift = -0.36 * TALL; // a loss surface is mostly low
  m[13] = lens * up[2]! * shift;
  m[14] = depth[0] * (FAR - near[2]! * shift) + depth[1];
  m[15] = FAR - near[2]! * shift;
  return m;
}
/** Where a point lands: from −1 to 1 across and up, and how deep. */
export function landing(m: Matrix, x: number, y: number, z: number): [across: number, up: number, depth: number] {
  const row = (k: number) => m[k]! * x + m[4 + k]! * y + m[8 + k]! * z + m[12 + k]!;
  const w = row(3);
  return [row(0) / w, row(1) / w, row(2) / w];
}

const MOST = 16; // shades
const HEAD = '#version 300 es\nprecision highp float;\n';
const SURFACE = [
  `in vec3 place; in float value; uniform mat4 seen; out float height;
  void main() { gl_Position = seen * vec4(place, 1.0); height = value; }`,
  `in float height; uniform int count; uniform float edges[${MOST}]; uniform vec3 shades[${MOST}]; uniform vec3 lines[${MOST}]; out vec4 colour;
  void main() {
    int band = 0; float slope = fwidth(height); bool line = false;
    for (int i = 0; i < ${MOST}; i++) {
      if (i >= count) break;
      if (height >= edges[i]) band = i + 1;
      if (abs(height - edges[i]) < 0.6 * slope) line = true;
    }
    colour = vec4(line ? lines[band] : shades[band], 1.0);
  }`,
];
// A segment is two triangles, as wide as said in pixels, a little nearer to the eye than what it lies on.
const LINE = [
  `in vec3 from, to; uniform mat4 seen; uniform vec2 half_; uniform float wide;
  void main() {
    vec4 a = seen * vec4(from, 1.0), b = seen * vec4(to, 1.0);
    vec2 p = a.xy / a.w * half_, q = b.xy / b.w * half_, way = q - p;
    way = length(way) > 1e-4 ? normalize(way) : vec2(1.0, 0.0);
    bool end = gl_VertexID == 1 || gl_VertexID == 2 || gl_VertexID == 4;
    float side = gl_VertexID == 0 || gl_VertexID == 1 || gl_VertexID == 3 ? -1.0 : 1.0;
    vec4 at = end ? b : a;
    vec2 corner = (end ? q : p) + 0.5 * wide * (side * vec2(-way.y, way.x) + (end ? 0.4 : -0.4) * way);
    gl_Position = vec4(corner / half_ * at.w, at.z - 0.003 * at.w, at.w);
  }`,
  `uniform vec4 ink; out vec4 colour; void main() { colour = vec4(ink.rgb * ink.a, ink.a); }`,
];
const DOT = [
  `uniform vec3 place; uniform mat4 seen; uniform float wide;
  void main() { gl_Position = seen * vec4(place, 1.0); gl_PointSize = wide; }`,
  `uniform vec3 inner, outer; uniform float hole; out vec4 colour;
  void main() {
    float r = 2.0 * length(gl_PointCoord - 0.5);
    if (r > 1.0 || r < hole) discard;
    colour = vec4(r > 0.7 ? outer : inner, 1.0);
  }`,
];

export interface Mesh {
  places: Float32Array; // x, y, z of each
  values: Float32Array;
  rows: number;
  columns: number;
  holes: (i: number) => boolean;
  edges: number[];
  shades: Colour[];
  lines: Colour[];
}
export interface Line { points: Float32Array; colour: Colour; halo?: Colour; wide: number; faint: number; cover?: number } // faint: seen so much through the surface
export interface Dot { place: [number, number, number]; inner: Colour; outer: Colour; wide: number; hole?: number }

/** A canvas with what is needed to draw; null where the browser has no WebGL2. */
export class Space {
  private mesh: { vertices: WebGLVertexArrayObject; buffers: WebGLBuffer[]; count: number; of: Mesh } | null = null;
  private segments: { vertices: WebGLVertexArrayObject; buffer: WebGLBuffer };
  private surface: WebGLProgram;
  private line: WebGLProgram;
  private dot: WebGLProgram;

  static on(canvas: HTMLCanvasElement): Space | null {
    const gl = canvas.getContext('webgl2', { antialias: true, alpha: true });
    return gl && !gl.isContextLost() ? new Space(gl) : null;
  }
  private constructor(private gl: WebGL2RenderingContext) {
    [this.surface, this.line, this.dot] = [SURFACE, LINE, DOT].map(([vertex, fragment]) => this.program(vertex!, fragment!)) as [WebGLProgram, WebGLProgram, WebGLProgram];
    const [vertices, buffer] = [gl.createVertexArray()!, gl.createBuffer()!];
    gl.bindVertexArray(vertices);
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    ['from', 'to'].forEach((name, k) => {
      const at = gl.getAttribLocation(this.line, name);
      gl.enableVertexAttribArray(at);
      gl.vertexAttribPointer(at, 3, gl.FLOAT, false, 12, 12 * k); // a point's end is the next one's begin
      gl.vertexAttribDivisor(at, 1);
    });
    this.segments = { vertices, buffer };
  }
  private program(vertex: string, fragment: string): WebGLProgram {
    const gl = this.gl, made = gl.createProgram()!;
    for (const [kind, text] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]] as const) {
      const shader = gl.createShader(kind)!;
      gl.shaderSource(shader, HEAD + text);
      gl.compileShader(shader);
      gl.attachShader(made, shader);
    }
    gl.linkProgram(made);
    if (!gl.getProgramParameter(made, gl.LINK_STATUS) && !gl.isContextLost()) throw new Error(gl.getProgramInfoLog(made) ?? 'The shaders do not link.');
    return made;
  }
  private uniform(program: WebGLProgram, name: string) {
    return this.gl.getUniformLocation(program, name);
  }
  private laid(mesh: Mesh) {
    const gl = this.gl, vertices = gl.createVertexArray()!, { rows, columns } = mesh;
    const buffers = Array.from({ length: 3 }, () => gl.createBuffer()!);
    gl.deleteVertexArray(this.mesh?.vertices ?? null);
    for (const old of this.mesh?.buffers ?? []) gl.deleteBuffer(old);
    gl.bindVertexArray(vertices);
    for (const [name, data, size, buffer] of [['place', mesh.places, 3, buffers[0]!], ['value', mesh.values, 1, buffers[1]!]] as const) {
      gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
      gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
      const at = gl.getAttribLocation(this.surface, name);
      gl.enableVertexAttribArray(at);
      gl.vertexAttribPointer(at, size, gl.FLOAT, false, 0, 0);
    }
    const triangles: number[] = [];
    for (let r = 0; r + 1 < rows; r++)
      for (let c = 0; c + 1 < columns; c++) {
        const i = r * columns + c;
        for (const corner of [[i, i + 1, i + columns], [i + 1, i + columns + 1, i + columns]]) if (!corner.some(mesh.holes)) triangles.push(...corner);
      }
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, buffers[2]!);
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, new Uint32Array(triangles), gl.STATIC_DRAW);
    return { vertices, buffers, count: triangles.length, of: mesh };
  }
  draw(seen: Matrix, mesh: Mesh, lines: Line[], dots: Dot[], density: number) {
    const gl = this.gl, [width, height] = [gl.drawingBufferWidth, gl.drawingBufferHeight];
    if (this.mesh?.of !== mesh) this.mesh = this.laid(mesh);
    gl.viewport(0, 0, width, height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.enable(gl.DEPTH_TEST);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);

    gl.useProgram(this.surface);
    gl.bindVertexArray(this.mesh.vertices);
    gl.uniformMatrix4fv(this.uniform(this.surface, 'seen'), false, seen);
    gl.uniform1i(this.uniform(this.surface, 'count'), mesh.edges.length);
    if (mesh.edges.length) gl.uniform1fv(this.uniform(this.surface, 'edges'), mesh.edges);
    gl.uniform3fv(this.uniform(this.surface, 'shades'), mesh.shades.flat());
    gl.uniform3fv(this.uniform(this.surface, 'lines'), mesh.lines.flat());
    gl.drawElements(gl.TRIANGLES, this.mesh.count, gl.UNSIGNED_INT, 0);

    gl.depthMask(false);
    gl.useProgram(this.line);
    gl.bindVertexArray(this.segments.vertices);
    gl.uniformMatrix4fv(this.uniform(this.line, 'seen'), false, seen);
    gl.uniform2f(this.uniform(this.line, 'half_'), width / 2, height / 2);
    for (const { points, colour, halo, wide, faint, cover = 1 } of lines) {
      const count = points.length / 3 - 1;
      if (count < 1) continue;
      gl.bindBuffer(gl.ARRAY_BUFFER, this.segments.buffer);
      gl.bufferData(gl.ARRAY_BUFFER, points, gl.STREAM_DRAW);
      const stroke = (ink: Colour, width: number, cover: number) => {
        gl.uniform1f(this.uniform(this.line, 'wide'), width * density);
        gl.uniform4f(this.uniform(this.line, 'ink'), ...ink, cover);
        gl.drawArraysInstanced(gl.TRIANGLES, 0, 6, count);
      };
      if (faint) {
        gl.depthFunc(gl.GREATER);
        stroke(colour, wide, faint);
      }
      gl.depthFunc(gl.LEQUAL);
      if (halo) stroke(halo, wide + 2.5, 1);
      stroke(colour, wide, cover);
    }
    gl.disable(gl.DEPTH_TEST);
    gl.useProgram(this.dot);
    gl.uniformMatrix4fv(this.uniform(this.dot, 'seen'), false, seen);
    for (const { place, inner, outer, wide, hole } of dots) {
      gl.uniform3f(this.uniform(this.dot, 'place'), ...place);
      gl.uniform3f(this.uniform(this.dot, 'inner'), ...inner);
      gl.uniform3f(this.uniform(this.dot, 'outer'), ...outer);
      gl.uniform1f(this.uniform(this.dot, 'wide'), wide * density);
      gl.uniform1f(this.uniform(this.dot, 'hole'), hole ?? 0);
      gl.drawArrays(gl.POINTS, 0, 1);
    }
    gl.depthMask(true);
  }
}
