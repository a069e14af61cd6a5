#!/usr/bin/env node
// A client of docs/PROTOCOL.md for Node.js (18 or later) and its own modules, written from that page alone.
// Comments name the page's sections. It keeps no counter between runs (section 5, item 1, last sentence).

import { createCipheriv, createHash, createHmac, createPrivateKey, createPublicKey, diffieHellman,
  randomBytes } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { lookup } from 'node:dns/promises';
import { readFileSync } from 'node:fs';
import { BlockList, isIP, isIPv4, isIPv6 } from 'node:net';
import { parseArgs } from 'node:util';

const USAGE = `usage: knock.mjs INVITE_FILE REQUEST... [--mode observed|bound|explicit] [--address A] [--seconds N]
                 [--close] [--to HOST] [--port P] [--print-hex]
       knock.mjs --self-test
A REQUEST is tcp/PORT, udp/PORT or a service's name; --close may have none. Without --mode: bound where this
machine's address is global, else observed. --address is for bound (default: the local address) and explicit.
--print-hex prints each packet as it is sent.`;

const fail = (why, more = {}) => { throw Object.assign(new Error(why), more); };
const check = (right, why) => right || fail(why);

// ---- 1 Notation -----------------------------------------------------------------------------------------------------

const bytes = (...parts) => Buffer.concat(parts.map((p) => typeof p === 'string' ? Buffer.from(p, 'latin1')
  : typeof p === 'number' ? Buffer.of(p) : p));
const u16 = (n) => { const b = Buffer.alloc(2); b.writeUInt16BE(n); return b; };
const u32 = (n) => { const b = Buffer.alloc(4); b.writeUInt32BE(Number(n)); return b; };
const u64 = (n) => { const b = Buffer.alloc(8); b.writeBigUInt64BE(BigInt(n)); return b; };

const PKCS8 = Buffer.from('302e020100300506032b656e04220420', 'hex'); // X25519 keys as Node wants them
const SPKI = Buffer.from('302a300506032b656e032100', 'hex');
const privateKey = (k) => createPrivateKey({ key: bytes(PKCS8, k), format: 'der', type: 'pkcs8' });
const publicOf = (k) => createPublicKey(privateKey(k)).export({ format: 'der', type: 'spki' }).subarray(-32);
const x25519 = (k, u) => diffieHellman({ // throws where the result is zero
  privateKey: privateKey(k),
  publicKey: createPublicKey({ key: bytes(SPKI, u), format: 'der', type: 'spki' }),
});

const blake2s = (m) => createHash('blake2s256').update(m).digest();
const hmac = (key, m) => createHmac('blake2s256', key).update(m).digest();
const chacha20 = (key, nonce, m) => createCipheriv('chacha20', key, bytes(u32(0), nonce)).update(m);
const aead = (key, nonce, ad, m) => {
  const c = createCipheriv('chacha20-poly1305', key, nonce, { authTagLength: 16 }).setAAD(ad);
  return bytes(c.update(m), c.final(), c.getAuthTag());
};

// RFC 7693, with 32 bytes of output and a key of 0 or 32 bytes. Node has it without a key only.
const IV = Uint32Array.of(0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
  0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19);
const SIGMA = ['0123456789abcdef', 'ea489fd61c02b753', 'b8c052fdae367194', '7931dcbe265a40f8', '905724afe1bc683d',
  '2c6a0b834d75fe19', 'c51fed4a0763928b', 'db7ec13950f4862a', '6fe9b308c2d714a5', 'a2847615fb9e3cd0']
  .map((row) => [...row].map((d) => parseInt(d, 16)));
const QUARTERS = [[0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15],
  [0, 5, 10, 15], [1, 6, 11, 12], [2, 7, 8, 13], [3, 4, 9, 14]];

function kblake2s(key, message) {
  const data = key.length ? bytes(key, Buffer.alloc(64 - key.length), message) : message;
  const h = Uint32Array.from(IV);
  h[0] ^= 0x01010000 ^ (key.length << 8) ^ 32;
  const blocks = Math.max(1, Math.ceil(data.length / 64));
  for (let i = 0; i < blocks; i++) {
    const block = Buffer.alloc(64);
    data.copy(block, 0, 64 * i);
    const v = Uint32Array.of(...h, ...IV);
    const rotr = (x, n) => (x >>> n) | (x << (32 - n));
    v[12] ^= Math.min(data.length, 64 * (i + 1)); // the count of bytes; its upper half is 0
    if (i === blocks - 1) v[14] = ~v[14];
    for (const s of SIGMA) {
      QUARTERS.forEach(([a, b, c, d], q) => {
        for (const [half, r1, r2] of [[0, 16, 12], [1, 8, 7]]) {
          v[a] += v[b] + block.readUInt32LE(4 * s[2 * q + half]);
          v[d] = rotr(v[d] ^ v[a], r1);
          v[c] += v[d];
          v[b] = rotr(v[b] ^ v[c], r2);
        }
      });
    }
    for (let j = 0; j < 8; j++) h[j] ^= v[j] ^ v[j + 8];
  }
  return bytes(...[...h].map((word) => u32(word).swap32()));
}

const add = (a, b) => BigInt.asUintN(64, a + b);
const rotl = (x, n) => BigInt.asUintN(64, x << n) | (x >> (64n - n));

function siphash(key, message, long) {
  const [k0, k1] = [key.readBigUInt64LE(0), key.readBigUInt64LE(8)];
  let v0 = k0 ^ 0x736f6d6570736575n, v1 = k1 ^ 0x646f72616e646f6dn;
  let v2 = k0 ^ 0x6c7967656e657261n, v3 = k1 ^ 0x7465646279746573n;
  const rounds = (n) => {
    while (n--) {
      v0 = add(v0, v1); v1 = rotl(v1, 13n) ^ v0; v0 = rotl(v0, 32n);
      v2 = add(v2, v3); v3 = rotl(v3, 16n) ^ v2;
      v0 = add(v0, v3); v3 = rotl(v3, 21n) ^ v0;
      v2 = add(v2, v1); v1 = rotl(v1, 17n) ^ v2; v2 = rotl(v2, 32n);
    }
  };
  const out = Buffer.alloc(long ? 16 : 8);
  const padded = bytes(message, Buffer.alloc(7 - message.length % 8), message.length % 256);
  if (long) v1 ^= 0xeen;
  for (let i = 0; i < padded.length; i += 8) {
    const m = padded.readBigUInt64LE(i);
    v3 ^= m; rounds(2); v0 ^= m;
  }
  v2 ^= long ? 0xeen : 0xffn; rounds(4);
  out.writeBigUInt64LE(v0 ^ v1 ^ v2 ^ v3);
  if (long) { v1 ^= 0xddn; rounds(4); out.writeBigUInt64LE(v0 ^ v1 ^ v2 ^ v3, 8); }
  return out;
}

// ---- 2 Keys ---------------------------------------------------------------------------------------------------------

function checkPublic(key) {
  const number = BigInt(`0x${Buffer.from(key).reverse().toString('hex')}`);
  check(number < 2n ** 255n - 19n, 'the public key is not canonical');
  try { x25519(Buffer.alloc(32, 0x40), key); } catch { fail('the public key is of low order'); }
}

function derive({ server, client, psk, cloak }) {
  const ofClient = (label) => kblake2s(psk, bytes(label, server, client));
  return {
    filter_key: kblake2s(cloak, bytes('spa-v1-filter---', server)).subarray(0, 16),
    mask_key: kblake2s(cloak, bytes('spa-v1-mask-----', server)),
    hint_key: ofClient('spa-v1-hint-----').subarray(0, 16),
    gate_key: ofClient('spa-v1-gate-----').subarray(0, 16),
    noise_psk: ofClient('spa-v1-noise----'),
    hedge_key: ofClient('spa-v1-hedge----'),
  };
}

// ---- 3 Packet -------------------------------------------------------------------------------------------------------

// The keys are server and client (public), private, psk and cloak. It returns every step by its name in the vectors.
function seal(keys, payload, counter, random) {
  const d = derive(keys);
  const N = random.nonce;                                                       // 1
  const seconds = counter / 1000000000n;                                        // 2
  check(seconds < 2n ** 32n, 'the clock is beyond 2106');
  const time = u32(seconds);
  const hint = siphash(d.hint_key, u64(seconds / 64n), false);                  // 3
  const ephemeral = kblake2s(d.hedge_key, bytes(random.ephemeral, u64(counter))); // 4
  const e = publicOf(ephemeral);
  const es = x25519(ephemeral, keys.server);                                    // 5
  const ss = x25519(keys.private, keys.server);

  // 3.1 The Noise message, by its numbers
  let ck, h, k;
  const mixHash = (data) => { h = blake2s(bytes(h, data)); };
  const mixKey = (input) => {
    const t = hmac(ck, input);
    ck = hmac(t, bytes(1));
    k = hmac(t, bytes(ck, 2));
  };
  const mixKeyAndHash = (input) => {
    const t = hmac(ck, input);
    ck = hmac(t, bytes(1));
    const u = hmac(t, bytes(ck, 2));
    k = hmac(t, bytes(u, 3));
    mixHash(u);
  };
  const prologue = bytes('spa-v1-prologue-', N, time, hint);
  ck = h = blake2s('Noise_Kpsk0_25519_ChaChaPoly_BLAKE2s');                     // 1
  mixHash(prologue);                                                            // 2
  mixHash(keys.client);                                                         // 3
  mixHash(keys.server);                                                         // 4
  mixKeyAndHash(d.noise_psk);                                                   // 5
  mixHash(e);                                                                   // 6
  mixKey(e);                                                                    // 7
  mixKey(es);                                                                   // 8
  mixKey(ss);                                                                   // 9
  const ciphertext = aead(k, Buffer.alloc(12), h, payload);                     // 10, and 6 of section 3

  const M = siphash(d.gate_key, bytes(N, time, hint, e, ciphertext), false);    // 7
  const bare = bytes(time, hint, M, e, ciphertext);
  const masked = chacha20(d.mask_key, N, bare);                                 // 8
  const T = siphash(d.filter_key, bytes(N, masked), true);                      // 9
  return { ...d, time, hint, ephemeral_private: ephemeral, ephemeral_public: e, es, ss, prologue, ciphertext,
    gate_tag: M, unmasked: bytes(N, T, bare), tag: T, packet: bytes(N, T, masked) };
}

// ---- 3.2 Size -------------------------------------------------------------------------------------------------------

function pad(content, S) {
  const size = Number(content.length <= 160 ? 256n + S % 289n : 432n + S % 113n);
  check(content.length <= size - 96, 'the content is too long');
  return bytes(content, Buffer.alloc(size - 96 - content.length));
}

// ---- 4 Payload ------------------------------------------------------------------------------------------------------

const MODES = ['observed', 'bound', 'explicit'];
const SERVICE = /^[a-z][a-z0-9-]{0,31}$/;

function encodeRequest(text) {
  const [, protocol, digits] = /^(tcp|udp)\/([0-9]{1,5})$/.exec(text) ?? [];
  if (protocol) {
    const port = Number(digits);
    check(port >= 1 && port <= 65535, `no port: ${text}`);
    return bytes(1, protocol === 'tcp' ? 6 : 17, u16(port), u16(port));
  }
  check(SERVICE.test(text), `no request: ${text}`);
  return bytes(2, text.length, text);
}

// IPv6, or IPv4 as IPv4-mapped IPv6
function encodeAddress(text) {
  if (isIPv4(text)) return encodeAddress(`::ffff:${text}`);
  check(isIPv6(text) && !text.includes('%'), `no address: ${text}`);
  const words = text.replace(/(\d+)\.(\d+)\.(\d+)\.(\d+)$/, (_, a, b, c, d) =>
    `${(a * 256 + +b).toString(16)}:${(c * 256 + +d).toString(16)}`);
  const [head, tail] = words.split('::').map((half) => half.split(':').filter(Boolean));
  const zeros = Array(8 - head.length - (tail?.length ?? 0)).fill('0');
  return bytes(...[...head, ...zeros, ...(tail ?? [])].map((word) => u16(parseInt(word, 16))));
}

function encodeContent({ kind, mode, address, counter, seconds, requests }, extensions = Buffer.alloc(0)) {
  const close = kind === 'close';
  const encoded = requests.map(encodeRequest).sort(Buffer.compare);
  check(encoded.length <= 8 && (close || encoded.length), 'an open has 1 to 8 requests, a close 0 to 8');
  check(encoded.every((r, i) => !i || !r.equals(encoded[i - 1])), 'the same request twice');
  check(!close || seconds === 0, 'a close has no seconds');
  check(MODES.includes(mode), `no mode: ${mode}`);
  const where = mode === 'observed' ? Buffer.alloc(16) : encodeAddress(address);
  check(mode === 'observed' || where.some(Boolean), 'the address is all zero');
  return bytes(1, close ? 2 : 1, MODES.indexOf(mode), encoded.length, u64(counter), u32(seconds), where,
    u16(extensions.length), ...encoded, extensions);
}

// ---- 5 What a client does -------------------------------------------------------------------------------------------

const now = () => BigInt(Math.floor((performance.timeOrigin + performance.now()) * 1000)) * 1000n;

function nextCounter(now, last) {
  if (now > last) return now;
  return last + 1n - now <= 60n * 1000000000n ? last + 1n : now;
}

const LOCAL = new BlockList(); // what is not global
for (const [net, prefix] of [['0.0.0.0', 32], ['127.0.0.0', 8], ['169.254.0.0', 16], ['224.0.0.0', 4],
  ['255.255.255.255', 32], ['10.0.0.0', 8], ['172.16.0.0', 12], ['192.168.0.0', 16], ['100.64.0.0', 10]]) {
  LOCAL.addSubnet(net, prefix, 'ipv4');
}
for (const [net, prefix] of [['::', 128], ['::1', 128], ['fe80::', 10], ['ff00::', 8], ['fc00::', 7]]) {
  LOCAL.addSubnet(net, prefix, 'ipv6');
}

function addressMode({ mode, address }, local) {
  if (!mode) mode = address || !LOCAL.check(local, isIPv4(local) ? 'ipv4' : 'ipv6') ? 'bound' : 'observed';
  check(mode !== 'observed' || !address, 'observed has no address');
  check(mode !== 'explicit' || address, 'explicit needs --address');
  return { mode, address: mode === 'bound' ? address ?? local : address };
}

async function knock(invite, wish) {
  check(invite.private, "the invite has no private key: the client's own is not supported here");
  const keys = { server: invite.server, client: publicOf(invite.private), private: invite.private, psk: invite.psk,
    cloak: invite.cloaks[0] };
  let last = -1n;
  const name = wish.to ?? invite.address;
  const addresses = isIP(name) ? [name] : (await lookup(name, { all: true })).map((a) => a.address);
  for (const to of addresses) { // a packet, a counter and a socket for each
    const socket = createSocket(isIPv4(to) ? 'udp4' : 'udp6');
    try {
      await new Promise((done, wrong) => {
        socket.once('error', wrong);
        socket.connect(wish.port ?? invite.port, to, done);
      });
      const local = socket.address().address.replace(/%.*/, '').replace(/^::ffff:(?=\d+\.)/i, '');
      const { mode, address } = addressMode(wish, local);
      const counter = last = nextCounter(now(), last);
      const content = encodeContent({ ...wish, mode, address, counter });
      const made = seal(keys, pad(content, randomBytes(8).readBigUInt64BE()), counter,
        { nonce: randomBytes(12), ephemeral: randomBytes(32) });
      await new Promise((done, wrong) => socket.send(made.packet, (error) => error ? wrong(error) : done()));
      console.log(`sent ${made.packet.length} bytes to ${to}: ${wish.kind}, ${mode}${address ? ` ${address}` : ''}`);
      if (wish.printHex) console.log(made.packet.toString('hex'));
      for (const secret of ['ephemeral_private', 'es', 'ss', 'noise_psk', 'hedge_key']) made[secret].fill(0);
    } finally { socket.close(); }
  }
}

// ---- 8 Invite -------------------------------------------------------------------------------------------------------

function readInvite(text) {
  const line = text.replace(/^[ \t\r\n]+|[ \t\r\n]+$/g, '');
  check(line.length <= 24576, 'the invite is too long');
  if (!line.startsWith('spa1-')) {
    fail(/^spa[A-Za-z0-9]{1,4}-/.test(line) ? 'the invite needs a newer version' : 'this is no invite');
  }
  const code = line.slice(5);
  check(/^[A-Za-z0-9_-]*$/.test(code), 'the invite has a character that does not belong there');
  check(code.length >= 3, 'the invite was cut short');
  const all = Buffer.from(code, 'base64url'); // drops a last character that is alone
  const total = 2 + all.readUInt16BE();
  const characters = Math.ceil(total * 4 / 3);
  check(code.length >= characters, 'the invite was cut short');
  check(code.length <= characters, 'something was added to the invite');
  check(all.toString('base64url') === code && total >= 6, 'the invite was altered');
  check(blake2s(all.subarray(0, -4)).subarray(0, 4).equals(all.subarray(-4)), 'the invite was altered');

  const invite = { cloaks: [], services: [] };
  let last = 0;
  for (let rest = all.subarray(2, -4); rest.length;) {
    const type = rest[0];
    try {
      check(rest.length >= 3 && rest.length >= 3 + rest.readUInt16BE(1), 'past the end');
      const value = rest.subarray(3, 3 + rest.readUInt16BE(1));
      check(type > last || (type === last && (type === 5 || type === 8 || type > 9)), 'not in order');
      readField(invite, type, value);
      rest = rest.subarray(3 + value.length);
      last = type;
    } catch (error) { fail(`the invite is wrong: field ${type}: ${error.message}`, { field: type }); }
  }
  check(['client', 'address', 'port', 'server', 'psk'].every((f) => f in invite) && invite.cloaks.length,
    'the invite is wrong: a field is missing');
  return invite;
}

function readField(invite, type, value) {
  const ascii = value.toString('latin1');
  const ofLength = (n) => { check(value.length === n, `not of ${n} bytes`); return value; };
  switch (type) {
    case 1: invite.client = ascii; check(/^[a-z0-9][a-z0-9._-]{0,31}$/.test(ascii), 'no name'); break;
    case 2: {
      const label = /^[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?$/;
      const host = ascii.split('.').every((l) => label.test(l)) && !/(^|\.)[0-9]+$/.test(ascii);
      check(value.length <= 253 && !ascii.includes('%') && (isIP(ascii) || host), 'no address');
      invite.address = ascii;
      break;
    }
    case 3: invite.port = ofLength(2).readUInt16BE(); check(invite.port, 'port 0'); break;
    case 4: invite.server = ofLength(32); checkPublic(value); break;
    case 5:
      check(invite.cloaks.length < 4 && !invite.cloaks.some((c) => c.equals(ofLength(32))), 'too many or repeated');
      invite.cloaks.push(ofLength(32));
      break;
    case 6: invite.psk = ofLength(32); break;
    case 7: invite.private = ofLength(32); break;
    case 8: {
      const name = ascii.slice(1, 1 + value[0]);
      const list = value.subarray(1 + value[0]);
      check(name.length === value[0] && SERVICE.test(name), 'no service name');
      check(list.length % 3 === 0 && list.length >= 3 && list.length <= 3 * 64, 'no endpoints');
      const endpoints = Array.from({ length: list.length / 3 }, (_, i) => list.subarray(3 * i, 3 * i + 3));
      endpoints.forEach((p, i) => {
        check([6, 17].includes(p[0]) && p.readUInt16BE(1), 'no endpoint');
        check(!i || Buffer.compare(endpoints[i - 1], p) < 0, 'endpoints not in order');
      });
      const { services } = invite;
      check(services.length < 64 && (!services.length || services.at(-1).name < name), 'too many or not in order');
      services.push({ name, endpoints: endpoints.map((p) => `${p[0] === 6 ? 'tcp' : 'udp'}/${p.readUInt16BE(1)}`) });
      break;
    }
    case 9: invite.expires = Number(ofLength(8).readBigUInt64BE()); break;
    default: check(type && !(type & 0x80), 'unknown, and not to be skipped');
  }
}

// ---- 11 Test vectors ------------------------------------------------------------------------------------------------

function selfTest() {
  const load = (file) => JSON.parse(readFileSync(new URL(`../vectors/${file}`, import.meta.url)));
  const hex = (text) => Buffer.from(text, 'hex');
  let wrong = 0, right = 0;
  const same = (what, got, want) => {
    const [a, b] = [got, want].map((x) => Buffer.isBuffer(x) ? x.toString('hex') : JSON.stringify(x));
    if (a === b) right++; else { wrong++; console.error(`${what}: is ${a}, should be ${b}`); }
  };
  for (const length of [0, 1, 63, 64, 65, 128, 129, 500]) { // the BLAKE2s by hand against Node's
    const m = Buffer.alloc(length, 7);
    same(`BLAKE2s of ${length} bytes`, kblake2s(Buffer.alloc(0), m), blake2s(m));
  }
  const { vectors } = load('packet-v1.json');
  for (const v of vectors) {
    const keys = { server: publicOf(hex(v.keys.server_private)), client: publicOf(hex(v.keys.client_private)),
      private: hex(v.keys.client_private), psk: hex(v.keys.psk), cloak: hex(v.keys.cloak) };
    same(`${v.name}: server_public`, keys.server, hex(v.keys.server_public));
    same(`${v.name}: client_public`, keys.client, hex(v.keys.client_public));
    const counter = BigInt(v.knock.counter);
    const payload = pad(encodeContent({ ...v.knock, counter }, hex(v.extensions)), BigInt(v.random_size));
    same(`${v.name}: payload`, payload, hex(v.payload));
    const made = seal(keys, payload, counter, { nonce: hex(v.random_nonce), ephemeral: hex(v.random_ephemeral) });
    same(`${v.name}: length`, made.packet.length, v.length);
    for (const [step, got] of Object.entries(made)) {
      same(`${v.name}: ${step}`, got, step === 'time' ? u32(v.time) : hex(v[step]));
    }
  }
  const { invites } = load('files-v1.json');
  for (const v of invites) {
    try {
      const { server, cloaks, psk, private: own, ...rest } = readInvite(v.text);
      const text = (b) => b.toString('hex');
      const got = { ...rest, server_public: text(server), cloaks: cloaks.map(text), psk: text(psk),
        ...(own && { private: text(own) }) };
      const sorted = (o) => o && Object.fromEntries(Object.entries(o).sort());
      same(`invite: ${v.name}`, sorted(got), sorted(v.valid));
    } catch (error) {
      if (v.valid) same(`invite: ${v.name}: ${error.message}`, 'refused', 'valid');
      else if ('field' in v.refused) same(`invite: ${v.name}: field`, error.field, v.refused.field);
      else right++;
    }
  }
  console.log(`${vectors.length} packets, ${invites.length} invites: ${right} right, ${wrong} wrong`);
  return wrong || !vectors.length || !invites.length ? 1 : 0;
}

// ---- the command line -----------------------------------------------------------------------------------------------

async function main() {
  const text = { type: 'string' }, flag = { type: 'boolean', default: false };
  const { values: o, positionals: [file, ...requests] } = parseArgs({ allowPositionals: true, options: {
    mode: text, address: text, seconds: text, close: flag, to: text, port: text, 'print-hex': flag,
    'self-test': flag, help: flag,
  } });
  if (o.help) { console.log(USAGE); return 0; }
  if (o['self-test']) return selfTest();
  check(file, USAGE);
  const number = (name, most) => {
    if (o[name] === undefined) return undefined;
    check(/^[0-9]{1,10}$/.test(o[name]) && Number(o[name]) <= most, `--${name}: not a number up to ${most}`);
    return Number(o[name]);
  };
  const invite = readInvite(readFileSync(file, 'latin1'));
  if (invite.expires * 1000 <= Date.now()) console.error('knock: the invite has expired');
  await knock(invite, { kind: o.close ? 'close' : 'open', mode: o.mode, address: o.address, requests, to: o.to,
    seconds: number('seconds', 2 ** 32 - 1) ?? 0, port: number('port', 65535), printHex: o['print-hex'] });
  return 0;
}

try {
  process.exitCode = await main();
} catch (error) {
  console.error(`knock: ${error.message}`);
  process.exitCode = 1;
}
