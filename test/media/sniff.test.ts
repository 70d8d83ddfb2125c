import { describe, expect, test } from 'vitest';
import { looksLikeMarkup, looksLikeText, SNIFF_BYTES, sniffType } from '../../src/media/sniff.ts';

const bytes = (text: string): Buffer => Buffer.concat([Buffer.from(text, 'latin1'), Buffer.alloc(200, 1)]);

describe('sniffType', () => {
  test.each([
    ['#!AMR\n', 'audio/amr', 'amr'],
    ['#!AMR-WB\n', 'audio/amr-wb', 'awb'],
    ['#!SILK_V3', 'audio/silk', 'silk'],
    ['\x02#!SILK_V3', 'audio/silk', 'silk'],
    ['\xff\xd8\xff\xe0\x00\x10JFIF\x00', 'image/jpeg', 'jpg'],
    ['GIF89a', 'image/gif', 'gif'],
    ['\x00\x00\x00\x18ftypmp42', 'video/mp4', 'mp4'],
    ['RIFF\x00\x00\x00\x00WEBPVP8 ', 'image/webp', 'webp'],
  ])('%j is %s', async (head, mime, extension) => {
    expect(await sniffType(bytes(head))).toEqual({ mime, extension });
  });

  test('tells a PNG that begins with more colour profile than is looked at', async () => {
    const profile = Buffer.concat([Buffer.from('00010000', 'hex'), Buffer.from('iCCP'), Buffer.alloc(SNIFF_BYTES)]);
    const head = Buffer.from('89504e470d0a1a0a0000000d494844520000000100000001080600000000000000', 'hex');
    expect(await sniffType(Buffer.concat([head, profile]).subarray(0, SNIFF_BYTES))).toEqual({
      mime: 'image/png',
      extension: 'png',
    });
  });

  test.each([
    ['nothing', ''],
    ['a letter', 'x'],
    ['bare speex frames', '\x06\x00\x01\x02\x03'],
    ['JSON', '{"errcode":0}'],
  ])('says nothing of %s', async (_name, head) => {
    expect(await sniffType(Buffer.from(head, 'latin1'))).toBeUndefined();
  });
});

describe('looksLikeMarkup', () => {
  test.each([
    '<html>',
    '<!DOCTYPE html>',
    '  \n<!doctype html><p>',
    '\uFEFF<?xml version="1.0"?>',
    '<HEAD>',
    '<!-- x -->',
  ])('%j does', (text) => {
    expect(looksLikeMarkup(Buffer.from(text))).toBe(true);
  });

  test.each(['', '<', 'a <html>', '{"a":"<html>"}', '\xff\xd8<html>', '<3 you'])('%j does not', (text) => {
    expect(looksLikeMarkup(Buffer.from(text, 'latin1'))).toBe(false);
  });
});

describe('looksLikeText', () => {
  const ERROR = '{"errcode":-1,"errmsg":"system error"}';
  const utf32 = Buffer.from(ERROR.split('').flatMap((character) => [character.charCodeAt(0), 0, 0, 0]));

  test.each([
    ['UTF-8', Buffer.from(ERROR)],
    ['UTF-16', Buffer.from(ERROR, 'utf16le')],
    ['UTF-16, Cyrillic', Buffer.from('Система занята, повторите позже', 'utf16le')],
    ['UTF-32, little end first', utf32],
    ['UTF-32, big end first', Buffer.from(utf32).swap32()],
    ['Big5', Buffer.from('aa41b0c8bcc8aec9a4a3a569a5cebdd0b579abe1a641b8d5', 'hex')],
    ['EUC-JP', Buffer.from('a5b7a5b9a5c6a5e0a5a8a5e9a1bca4acc8afc0b8a4b7a4dea4b7a4bfa1a3', 'hex')],
  ])('knows words in %s', (_encoding, head) => {
    expect(looksLikeText(head)).toBe(true);
  });

  test.each([
    ['zeros', Buffer.alloc(64)],
    ['small numbers of four bytes', Buffer.from(new Uint32Array(16).map((_, index) => index * 1_000).buffer)],
    ['an AMR file', bytes('#!AMR\n')],
    ['bytes of every value', Buffer.from(Array.from({ length: 256 }, (_, value) => value))],
  ])('does not take %s for words', (_what, head) => {
    expect(looksLikeText(head)).toBe(false);
  });
});
