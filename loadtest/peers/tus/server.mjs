// A tus server: node server.mjs file FOLDER PORT, or node server.mjs s3 ENDPOINT PORT with AWS_* in the environment.
import { FileStore } from '@tus/file-store'
import { S3Store } from '@tus/s3-store'
import { Server } from '@tus/server'

const [, , kind, where, port] = process.argv
// @tus/server 2.4.5 on Node 20 throws this from a GET, uncaught; the upload is not concerned
process.on('uncaughtException', (error) => {
  if (error.code !== 'ERR_INVALID_STATE') throw error
})
const datastore =
  kind === 'file'
    ? new FileStore({ directory: where })
    : new S3Store({
        partSize: 8 * 1024 * 1024,
        s3ClientConfig: {
          bucket: 'bench',
          region: 'us-east-1',
          endpoint: where,
          forcePathStyle: true,
          // with the SDK's own default radosgw answers 411 to UploadPart
          requestChecksumCalculation: 'WHEN_REQUIRED',
          credentials: {
            accessKeyId: process.env.AWS_ACCESS_KEY_ID,
            secretAccessKey: process.env.AWS_SECRET_ACCESS_KEY,
          },
        },
      })
new Server({ path: '/files', datastore }).listen({ host: '127.0.0.1', port: Number(port) })
