declare module 'co-wechat-api' {
  class WechatApi {
    constructor(appId: string, secret: string);
    prefix: string;
    getMedia(mediaId: string): Promise<Buffer>;
  }
  export = WechatApi;
}
