// Chromium without a window, driven over a pipe by its own protocol
// (https://chromedevtools.github.io/devtools-protocol/).
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export class Browser {
    constructor(program) {
        this.profile = mkdtempSync(join(tmpdir(), 'ptq-web-'));
        this.process = spawn(
            program,
            [
                '--headless',
                '--no-sandbox',
                '--disable-gpu',
                '--no-first-run',
                '--remote-debugging-pipe',
                `--user-data-dir=${this.profile}`,
                'about:blank',
            ],
            { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] },
        );
        this.waiting = new Map();
        this.listeners = [];
        this.last = 0;
        let text = '';
        this.process.stdio[4].on('data', (data) => {
            text += data;
            const messages = text.split('\0');
            text = messages.pop();
            messages.forEach((message) => this.receive(JSON.parse(message)));
        });
        this.process.on('error', (problem) => this.giveUp(problem));
        this.process.on('exit', () => this.giveUp(new Error(`${program} has ended`)));
        this.process.stdio[3].on('error', () => {});
    }

    giveUp(problem) {
        for (const { refuse } of this.waiting.values()) refuse(problem);
        this.waiting.clear();
    }

    receive(message) {
        const call = this.waiting.get(message.id);
        if (!call) {
            this.listeners.forEach((listen) => listen(message));
            return;
        }
        this.waiting.delete(message.id);
        if (message.error) call.refuse(new Error(`${call.method}: ${message.error.message}`));
        else call.accept(message.result);
    }

    send(method, params = {}, sessionId = undefined) {
        return new Promise((accept, refuse) => {
            const id = ++this.last;
            this.waiting.set(id, { accept, refuse, method });
            this.process.stdio[3].write(JSON.stringify({ id, method, params, sessionId }) + '\0');
        });
    }

    // A new page at this address, `width` pixels wide, in a scheme ("light" or "dark").
    async open(url, { width, height, scheme = 'light' }) {
        const { targetId } = await this.send('Target.createTarget', { url: 'about:blank' });
        const { sessionId } = await this.send('Target.attachToTarget', { targetId, flatten: true });
        const page = new Page(this, targetId, sessionId);
        for (const domain of ['Page', 'Runtime', 'Log', 'Network', 'DOM'])
            await page.send(`${domain}.enable`);
        await page.send('Emulation.setDeviceMetricsOverride', {
            width,
            height,
            deviceScaleFactor: 1,
            mobile: width < 600,
        });
        await page.send('Emulation.setEmulatedMedia', {
            features: [{ name: 'prefers-color-scheme', value: scheme }],
        });
        await page.send('Page.navigate', { url });
        await page.until("location.href !== 'about:blank' && document.readyState !== 'loading'");
        return page;
    }

    async close() {
        const ended = new Promise((resume) => this.process.on('exit', resume));
        this.send('Browser.close').catch(() => {});
        const late = setTimeout(() => this.process.kill('SIGKILL'), 5000);
        await ended;
        clearTimeout(late);
        rmSync(this.profile, { recursive: true, force: true, maxRetries: 9, retryDelay: 300 });
    }
}

export class Page {
    constructor(browser, target, session) {
        Object.assign(this, { browser, target, session, problems: [], requests: [] });
        browser.listeners.push((message) => {
            if (message.sessionId === session) this.notice(message);
        });
    }

    // What the console says in red, and every address that is asked for.
    notice({ method, params }) {
        if (method === 'Runtime.exceptionThrown')
            this.problems.push(
                params.exceptionDetails.exception?.description ?? params.exceptionDetails.text,
            );
        if (method === 'Runtime.consoleAPICalled' && ['error', 'warning'].includes(params.type))
            this.problems.push(
                params.args.map((value) => value.value ?? value.description).join(' '),
            );
        if (method === 'Log.entryAdded' && ['error', 'warning'].includes(params.entry.level))
            this.problems.push(params.entry.text);
        if (method === 'Network.requestWillBeSent') this.requests.push(params.request.url);
    }

    send(method, params) {
        return this.browser.send(method, params, this.session);
    }

    // The value of an expression in the page; promises are awaited.
    async value(expression) {
        const { result, exceptionDetails } = await this.send('Runtime.evaluate', {
            expression,
            awaitPromise: true,
            returnByValue: true,
        });
        if (exceptionDetails)
            throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
        return result.value;
    }

    async until(expression, seconds = 60) {
        for (const end = Date.now() + 1000 * seconds; Date.now() < end;) {
            if (await this.value(expression)) return;
            await new Promise((resume) => setTimeout(resume, 20));
        }
        throw new Error(`waited ${seconds} seconds in vain for ${expression}`);
    }

    async press(key, times = 1) {
        for (let i = 0; i < times; i++)
            for (const type of ['keyDown', 'keyUp'])
                await this.send('Input.dispatchKeyEvent', {
                    type,
                    key,
                    code: key === ' ' ? 'Space' : key,
                    ...(key === ' ' && type === 'keyDown' ? { text: ' ' } : {}),
                    windowsVirtualKeyCode: {
                        ArrowLeft: 37,
                        ArrowRight: 39,
                        ArrowDown: 40,
                        Tab: 9,
                        ' ': 32,
                    }[key],
                });
    }

    async chooseFile(selector, path) {
        const { root } = await this.send('DOM.getDocument');
        const { nodeId } = await this.send('DOM.querySelector', { nodeId: root.nodeId, selector });
        await this.send('DOM.setFileInputFiles', { nodeId, files: [path] });
    }

    // The whole page as a PNG.
    async picture() {
        const { cssContentSize } = await this.send('Page.getLayoutMetrics');
        const { data } = await this.send('Page.captureScreenshot', {
            captureBeyondViewport: true,
            clip: {
                x: 0,
                y: 0,
                width: cssContentSize.width,
                height: cssContentSize.height,
                scale: 1,
            },
        });
        return Buffer.from(data, 'base64');
    }

    close() {
        return this.browser.send('Target.closeTarget', { targetId: this.target });
    }
}
