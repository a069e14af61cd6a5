#!/usr/bin/env python3
"""A client of the protocol in plain Python, which follows docs/PROTOCOL.md and uses none of our code.

It is here to show that the page suffices, and to knock in tests. It is not for use: its arithmetic takes a time that
depends on the keys, it keeps no counter between runs, and it wipes nothing from memory. Standard library only.

    knock.py INVITE_FILE --request ssh --request tcp/22 --mode bound --address 192.0.2.7
"""

import argparse
import base64
import hashlib
import ipaddress
import os
import re
import socket
import sys
import time

# --- Section 1: primitives ---

MASK64 = 2**64 - 1
MASK32 = 2**32 - 1


def blake2s(data, key=b""):
    return hashlib.blake2s(data, key=key).digest()


def hmac(key, data):
    block = key.ljust(64, b"\0")
    inner = blake2s(bytes(b ^ 0x36 for b in block) + data)
    return blake2s(bytes(b ^ 0x5C for b in block) + inner)


def siphash(key, message, size):
    """SipHash-2-4 with 8 or 16 bytes of output."""
    k0, k1 = (int.from_bytes(key[at : at + 8], "little") for at in (0, 8))
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]
    if size == 16:
        v[1] ^= 0xEE

    def left(word, by):
        return (word << by | word >> 64 - by) & MASK64

    def rounds(count):
        for _ in range(count):
            v[0] = v[0] + v[1] & MASK64
            v[1] = left(v[1], 13) ^ v[0]
            v[0] = left(v[0], 32)
            v[2] = v[2] + v[3] & MASK64
            v[3] = left(v[3], 16) ^ v[2]
            v[0] = v[0] + v[3] & MASK64
            v[3] = left(v[3], 21) ^ v[0]
            v[2] = v[2] + v[1] & MASK64
            v[1] = left(v[1], 17) ^ v[2]
            v[2] = left(v[2], 32)

    def output():
        return (v[0] ^ v[1] ^ v[2] ^ v[3]).to_bytes(8, "little")

    whole = len(message) // 8 * 8
    padded = message[:whole] + message[whole:].ljust(7, b"\0") + bytes([len(message) % 256])
    for at in range(0, len(padded), 8):
        word = int.from_bytes(padded[at : at + 8], "little")
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    v[2] ^= 0xFF if size == 8 else 0xEE
    rounds(4)
    first = output()
    if size == 8:
        return first
    v[1] ^= 0xDD
    rounds(4)
    return first + output()


def x25519(private, public):
    """RFC 7748 section 5, the Montgomery ladder."""
    p = 2**255 - 19
    k = int.from_bytes(private, "little") & ~7 & 2**255 - 1 | 2**254
    x1 = int.from_bytes(public, "little") & 2**255 - 1
    x2, z2, x3, z3, swap = 1, 0, x1, 1, 0
    for bit in reversed(range(255)):
        k_bit = k >> bit & 1
        if swap ^ k_bit:
            x2, z2, x3, z3 = x3, z3, x2, z2
        swap = k_bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a % p, b * b % p, d * a % p, c * b % p
        e = aa - bb
        x3, z3 = (da + cb) ** 2 % p, x1 * (da - cb) ** 2 % p
        x2, z2 = aa * bb % p, e * (aa + 121665 * e) % p
    if swap:
        x2, z2 = x3, z3
    return (x2 * pow(z2, p - 2, p) % p).to_bytes(32, "little")


BASE_POINT = (9).to_bytes(32, "little")


def chacha20(key, nonce, length, counter=0):
    """RFC 8439 section 2.4: that much of the key stream."""
    stream = b""
    words = [int.from_bytes(key[at : at + 4], "little") for at in range(0, 32, 4)]
    tail = [int.from_bytes(nonce[at : at + 4], "little") for at in range(0, 12, 4)]
    while len(stream) < length:
        start = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574, *words, counter, *tail]
        s = start[:]

        def quarter(a, b, c, d):
            for to, by, turn in ((a, b, (d, 16)), (c, d, (b, 12)), (a, b, (d, 8)), (c, d, (b, 7))):
                s[to] = s[to] + s[by] & MASK32
                word = s[turn[0]] ^ s[to]
                s[turn[0]] = (word << turn[1] | word >> 32 - turn[1]) & MASK32

        for _ in range(10):
            for i in range(4):
                quarter(i, 4 + i, 8 + i, 12 + i)
            for i in range(4):
                quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
        stream += b"".join((a + b & MASK32).to_bytes(4, "little") for a, b in zip(s, start))
        counter += 1
    return stream[:length]


def xor(a, b):
    return bytes(x ^ y for x, y in zip(a, b))


def aead(key, nonce, data, plain):
    """RFC 8439 section 2.8: ciphertext and tag."""
    ciphertext = xor(plain, chacha20(key, nonce, len(plain), 1))
    one_time = chacha20(key, nonce, 32)
    r = int.from_bytes(one_time[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    message = b"".join(part + bytes(-len(part) % 16) for part in (data, ciphertext))
    message += len(data).to_bytes(8, "little") + len(ciphertext).to_bytes(8, "little")
    total = 0
    for at in range(0, len(message), 16):
        total = (total + int.from_bytes(message[at : at + 16] + b"\1", "little")) * r % (2**130 - 5)
    tag = total + int.from_bytes(one_time[16:], "little") & 2**128 - 1
    return ciphertext + tag.to_bytes(16, "little")


# --- Section 8: the invite ---


def parse_invite(line, passphrase=None):
    line = line.strip()
    prefix, _, body = line.partition("-")
    if prefix not in ("spa1", "spae1"):
        sys.exit("not an invite of version 1")
    data = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
    if int.from_bytes(data[:2], "big") != len(data) - 2 or blake2s(data[:-4])[:4] != data[-4:]:
        sys.exit("the invite is damaged")
    data = data[2:-4]
    if prefix == "spae1":
        data = decrypt_invite(data, passphrase)
    fields, at = {}, 0
    while at < len(data):
        kind, length = data[at], int.from_bytes(data[at + 1 : at + 3], "big")
        fields.setdefault(kind, []).append(data[at + 3 : at + 3 + length])
        at += 3 + length
        if kind & 0x80:
            sys.exit(f"the invite's field {kind} is unknown")
    return fields


def decrypt_invite(content, passphrase):
    """Section 8.1."""
    work, salt, ciphertext = content[0], content[1:17], content[17:]
    if not 10 <= work <= 18 or passphrase is None:
        sys.exit("an encrypted invite wants its passphrase, and a work factor of 10 to 18")
    salt = b"spa-v1-invite---" + salt
    key = hashlib.scrypt(passphrase.encode(), salt=salt, n=2**work, r=8, p=1, dklen=32, maxmem=2**29)
    plain = xor(ciphertext[:-16], chacha20(key, bytes(12), len(ciphertext) - 16, 1))
    if aead(key, bytes(12), content[:17], plain) != ciphertext:
        sys.exit("the passphrase is not the one of this invite")
    return plain


# --- Sections 3 and 4: the packet ---


def encode_request(text):
    if "/" in text:
        name, port = text.split("/")
        port = int(port).to_bytes(2, "big")
        return bytes([1, {"tcp": 6, "udp": 17}[name]]) + port + port
    if not re.fullmatch("[a-z][a-z0-9-]{0,31}", text):
        sys.exit(f"{text} is not the name of a service")
    return bytes([2, len(text)]) + text.encode()


def encode_address(mode, text):
    if mode == 0:
        return bytes(16)
    address = ipaddress.ip_address(text)
    return address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed


def encode_content(close, mode, address, counter, seconds, requests):
    encoded = sorted({encode_request(text) for text in requests})
    content = bytes([1, 2 if close else 1, mode, len(encoded)]) + counter.to_bytes(8, "big")
    content += (0 if close else seconds).to_bytes(4, "big") + encode_address(mode, address) + bytes(2)
    return content + b"".join(encoded)


def noise(prologue, client, server, psk, e, es, ss, payload):
    """Section 3.1."""
    h = ck = blake2s(b"Noise_Kpsk0_25519_ChaChaPoly_BLAKE2s")
    for data in (prologue, client, server):
        h = blake2s(h + data)
    t = hmac(ck, psk)
    ck = hmac(t, b"\1")
    u = hmac(t, ck + b"\2")
    h = blake2s(h + u)
    h = blake2s(h + e)
    for data in (e, es, ss):
        t = hmac(ck, data)
        ck = hmac(t, b"\1")
        k = hmac(t, ck + b"\2")
    return aead(k, bytes(12), h, payload)


def seal(keys, content, counter, n, r, size):
    """Section 3. `keys`: private key, psk, cloak key, server's public key."""
    private, psk, cloak, server = keys
    client = x25519(private, BASE_POINT)
    pair = server + client
    filter_key = blake2s(b"spa-v1-filter---" + server, cloak)[:16]
    mask_key = blake2s(b"spa-v1-mask-----" + server, cloak)
    hint_key = blake2s(b"spa-v1-hint-----" + pair, psk)[:16]
    gate_key = blake2s(b"spa-v1-gate-----" + pair, psk)[:16]
    noise_psk = blake2s(b"spa-v1-noise----" + pair, psk)
    hedge_key = blake2s(b"spa-v1-hedge----" + pair, psk)

    length = 256 + size % 289 if len(content) <= 160 else 432 + size % 113
    payload = content.ljust(length - 96, b"\0")
    seconds = counter // 10**9
    stamp = seconds.to_bytes(4, "big")
    hint = siphash(hint_key, (seconds // 64).to_bytes(8, "big"), 8)
    ephemeral = blake2s(r + counter.to_bytes(8, "big"), hedge_key)
    e = x25519(ephemeral, BASE_POINT)
    es, ss = x25519(ephemeral, server), x25519(private, server)
    prologue = b"spa-v1-prologue-" + n + stamp + hint
    ciphertext = noise(prologue, client, server, noise_psk, e, es, ss, payload)
    m = siphash(gate_key, n + stamp + hint + e + ciphertext, 8)
    rest = stamp + hint + m + e + ciphertext
    masked = xor(rest, chacha20(mask_key, n, len(rest)))
    return n + siphash(filter_key, n + masked, 16) + masked


# --- Section 5: the client ---


def local_address(host, port):
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(address)
        return probe.getsockname()[0].split("%")[0]


def key_file_private(path):
    with open(path, encoding="utf-8") as file:
        for line in file:
            name, _, value = line.partition("=")
            if name.strip() == "private":
                return base64.b64decode(value.strip(), validate=True)
    sys.exit(f"{path} has no private key")


def arguments():
    parser = argparse.ArgumentParser(description="Knock at a server, for tests.")
    parser.add_argument("invite", metavar="INVITE_FILE", help="a file with an invite; - is standard input")
    parser.add_argument("--passphrase-file", metavar="FILE", help="holds the passphrase of an encrypted invite")
    parser.add_argument("--request", action="append", default=[], help="a service, tcp/PORT or udp/PORT; repeatable")
    parser.add_argument("--mode", choices=("observed", "bound", "explicit"), default="observed")
    parser.add_argument("--address", help="for bound (default: the local address) and explicit")
    parser.add_argument("--seconds", type=int, default=0)
    parser.add_argument("--close", action="store_true")
    parser.add_argument("--to", metavar="HOST", help="instead of the invite's address")
    parser.add_argument("--port", type=int, help="instead of the invite's port")
    parser.add_argument("--key", metavar="FILE", help="key file with the private key, where the invite has none")
    parser.add_argument("--print", action="store_true", help="print the packet in hexadecimal, send nothing")
    vectors = parser.add_argument_group("instead of the clock and the random source, for test vectors")
    vectors.add_argument("--counter", type=int)
    vectors.add_argument("--random-nonce", type=bytes.fromhex)
    vectors.add_argument("--random-ephemeral", type=bytes.fromhex)
    vectors.add_argument("--random-size", type=int)
    return parser.parse_args()


def otherwise(value, default):
    return default() if value is None else value


def main():
    args = arguments()
    with sys.stdin if args.invite == "-" else open(args.invite, encoding="ascii") as file:
        line = file.read()
    passphrase = None
    if args.passphrase_file:
        with open(args.passphrase_file, encoding="utf-8") as file:
            passphrase = file.readline().rstrip("\r\n")
    invite = parse_invite(line, passphrase)
    host = args.to or invite[2][0].decode()
    port = args.port or int.from_bytes(invite[3][0], "big")
    private = key_file_private(args.key) if args.key else invite.get(7, [None])[0]
    if private is None:
        sys.exit("the invite has no private key; name a key file with --key")
    mode = ("observed", "bound", "explicit").index(args.mode)
    if mode == 1 and args.address is None:
        args.address = local_address(host, port)
    if mode == 2 and args.address is None:
        sys.exit("explicit wants --address")
    if not args.request and not args.close:
        sys.exit("name at least one --request")
    counter = otherwise(args.counter, time.time_ns)
    content = encode_content(args.close, mode, args.address, counter, args.seconds, args.request)
    keys = (private, invite[6][0], invite[5][0], invite[4][0])
    packet = seal(
        keys,
        content,
        counter,
        otherwise(args.random_nonce, lambda: os.urandom(12)),
        otherwise(args.random_ephemeral, lambda: os.urandom(32)),
        otherwise(args.random_size, lambda: int.from_bytes(os.urandom(8), "big")),
    )
    if args.print:
        print(packet.hex())
        return
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as sender:
        sender.sendto(packet, address)


if __name__ == "__main__":
    main()
