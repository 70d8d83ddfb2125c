import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { freePort } from '../../../src/demo/redis-server.ts';
import { eventually } from '../../support/eventually.ts';
import { SAMPLE_SIZES, sampleFolder } from './samples.ts';

/** An nginx of one process, on loopback. */
export interface Nginx extends AsyncDisposable {
  readonly url: string;
  readonly pid: number;
}

/**
 * Stands in for WeChat: one token for all, and every media id that names one of our sizes.
 *
 * @see SAMPLE_SIZES
 */
export async function startOrigin(executable: string, folder: string): Promise<Nginx> {
  const root = await sampleFolder(join(folder, 'samples'));
  const token = '{"access_token":"token-of-the-bench","expires_in":7200}';
  const maps = SAMPLE_SIZES.map(({ name, file }) => `~^${name}- /${file};`).join(' ');
  return startNginx(executable, join(folder, 'origin'), {
    maps: `map $arg_media_id $media { default /missing; ${maps} } map $uri $listed { default /missing; ${maps.replaceAll('~^', '~^/files/')} }`,
    server: `
      root ${root};
      location ~ ^/cgi-bin/(stable_token|token)$ { default_type application/json; return 200 '${token}'; }
      location = /cgi-bin/media/get {
        types { image/jpeg jpg; audio/amr amr; }
        add_header Content-disposition 'attachment; filename="media.jpg"';
        try_files $media =404;
      }
      location /files/ { types { image/jpeg jpg; audio/amr amr; } try_files $listed =404; }`,
  });
}

/**
 * Stands in for a store that costs next to nothing: it reads what it is sent, forgets it and says yes, in this order. By
 * itself nginx answers before it has read a body; what it hands on to another server it reads first, and the other is itself,
 * which is told of no body. It refuses the hash by which a worker finds out whether a store looks at hashes, since a store that is worth its name does.
 */
export function startSink(executable: string, folder: string): Promise<Nginx> {
  const xml = (type: string, content: string): string => `'<${type}>${content}</${type}>'`;
  const begun = xml('InitiateMultipartUploadResult', '<Bucket>bench</Bucket><Key>k</Key><UploadId>u</UploadId>');
  const completed = xml('CompleteMultipartUploadResult', '<ETag>&quot;0&quot;</ETag>');
  const answers = join(folder, 'sink', 'answers.sock');
  return startNginx(executable, join(folder, 'sink'), {
    maps: `
      map "$request_method $args" $answer {
        default '';
        '~^POST (.*&)?uploads' ${begun};
        '~^POST .*uploadId' ${completed};
        '~^GET (.*&)?uploads' ${xml('ListMultipartUploadsResult', '<IsTruncated>false</IsTruncated>')};
        '~^GET' ${xml('ListBucketResult', '<IsTruncated>false</IsTruncated>')};
      }
      upstream answers { server unix:${answers}; keepalive 64; }
      server {
        listen unix:${answers};
        location / {
          add_header ETag '"0123456789abcdef0123456789abcdef"' always;
          default_type application/xml;
          return 201 $answer;
        }
      }
      map "$request_method $http_x_amz_content_sha256 $arg_uploadId" $refused {
        default 0;
        'PUT e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 ' 1;
      }`,
    // 201 and not 200: to that nginx would apply If-None-Match itself.
    server: `
      location / {
        default_type application/xml;
        if ($refused) { return 400 ${xml('Error', '<Code>XAmzContentSHA256Mismatch</Code>')}; }
        if ($request_method = HEAD) { return 404; }
        proxy_pass http://answers;
        proxy_http_version 1.1;
        proxy_set_header Connection '';
        proxy_set_header Content-Length '';
        proxy_pass_request_body off;
      }`,
  });
}

interface Settings {
  readonly maps: string;
  readonly server: string;
}

async function startNginx(executable: string, folder: string, { maps, server }: Settings): Promise<Nginx> {
  for (const name of ['body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'])
    await mkdir(join(folder, name), { recursive: true });
  const port = await freePort();
  const settings = join(folder, 'nginx.conf');
  await writeFile(
    settings,
    `daemon off; master_process off; pid ${folder}/pid; error_log ${folder}/error.log;
    events { worker_connections 2048; }
    http {
      access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000; keepalive_timeout 300;
      client_max_body_size 0; client_body_buffer_size 16m; map_hash_bucket_size 256;
      client_body_temp_path ${folder}/body; proxy_temp_path ${folder}/proxy; fastcgi_temp_path ${folder}/fastcgi;
      uwsgi_temp_path ${folder}/uwsgi; scgi_temp_path ${folder}/scgi;
      open_file_cache max=100; ${maps}
      server { listen 127.0.0.1:${port} backlog=1024; ${server} }
    }`,
  );
  const child = spawn(executable, ['-e', join(folder, 'error.log'), '-p', folder, '-c', settings], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  const ended = once(child, 'exit');
  const url = `http://127.0.0.1:${port}`;
  await eventually(async () => {
    if (child.exitCode !== null) throw new Error('nginx ended at its start');
    return fetch(url).then(
      () => true,
      () => undefined,
    );
  });
  return {
    url,
    pid: child.pid ?? 0,
    [Symbol.asyncDispose]: async () => {
      child.kill('SIGKILL');
      await ended;
    },
  };
}
